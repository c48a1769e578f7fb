// What the page says, in each of its languages. A value with a number is a function of it.

import { inChinese } from "./sentences.js";

const s = (n, one, many) => `${n} ${Number(String(n).replace(/\D/g, "")) === 1 ? one : many}`;

export const WORDS = {
  en: {
    skip: "Skip to what is on its way", language: "Language", connecting: "One moment…", overall: "All uploads",
    idle: "Everything is uploaded.", idleDetail: (files, folders) => `${s(files, "file is", "files are")} at their providers. ${s(folders, "folder is", "folders are")} watched; you may switch off.`,
    toPutAway: (n) => `${s(n, "file is", "files are")} still to be moved or deleted here, as \`after\` says.`,
    fresh: "Ready for the first file.", freshDetail: (n) => `${s(n, "folder is", "folders are")} watched.`,
    working: (n) => `Uploading ${s(n, "file", "files")}.`, waiting: (n) => `${s(n, "file waits", "files wait")}.`,
    settling: "Looking at new files…", restingHead: "Uploads rest.", toGo: (size) => `${size} to go`, left: (time) => `${time} left`,
    needsYou: (n) => `${s(n, "thing needs", "things need")} you.`,
    offlineHead: "Not connected.", offline: (time) => `The daemon does not answer. What you see is from ${time}; the page tries again by itself.`,
    offlineFirst: "The daemon does not answer. The page tries again by itself.",
    rests: "Everything rests until you resume it.", restsUntil: (time) => `Everything rests until ${time}.`,
    attention: "Needs you", retryAll: "Retry all", retry: "Retry", forget: "Forget", tryAgain: "Try again", rescan: "Look again",
    askForget: (name) => `Forget ${name}? The file stays where it is; it will not be uploaded.`,
    outbox: "On its way", more: (n) => `and ${s(n, "more file", "more files")}`,
    emptyTitle: "Nothing is waiting.", emptyText: "Drop files into one of these folders, and they are uploaded:",
    acknowledged: (sent, size) => `${sent} of ${size}`, stored: "At the provider, being finished", queued: "Waits for its turn", begun: "Under way",
    nextTry: (time) => `next try ${time}`, paused: "rests", hours: (time) => `waits until ${time}`, now: "Now",
    history: "Uploaded", noHistory: "Uploaded files and their links will be listed here.", older: "Show older ones",
    verified: "Checked against the original", unlisted: "The provider no longer lists it", copied: "Copied", uncopied: "The browser did not let the page copy: try again.", copyUrl: "Link", copyMarkdown: "Markdown", copyHtml: "HTML",
    copyLabel: (what, name) => `Copy ${what} of ${name}`,
    speed: "Speed", slow: "slow", unlimited: "no limit", configured: "As configured", pauseAll: "Pause everything",
    quarter: "15 min", hour: "1 hour", forever: "Until I resume", pause: "Pause", resume: "Resume",
    providers: "Providers", watches: "Folders",
    ready: "Ready", blocked: "The account is refused", resting: "Rests", restingUntil: (time) => `Rests until ${time}`,
    grant: (time) => `permission for ${time} more`, noGrant: "no permission at present", pending: (n) => `${n} to go`,
    watching: "Watched", polling: "Scanned at intervals", away: "The folder is away", off: "Off",
    files: (n) => s(n, "file", "files"),
    tokenTitle: "This page needs a token", tokenText: "You find it in the configuration, under [web].", enter: "Open",
    failed: "That did not work.", pauseLabel: (name) => `Pause ${name}`, resumeLabel: (name) => `Resume ${name}`,
    day: "d", h: "h", min: "min", sec: "s",
  },
  zh: {
    skip: "跳到正在上传的文件", language: "语言", connecting: "请稍候…", overall: "全部上传",
    idle: "全部上传完毕。", idleDetail: (files, folders) => `${files} 个文件已在服务商处，正在监视 ${folders} 个文件夹；现在可以关机。`,
    toPutAway: (n) => `本机上还有 ${n} 个文件要按 after 的设置移走或删除。`,
    fresh: "准备就绪，等待第一个文件。", freshDetail: (n) => `正在监视 ${n} 个文件夹。`,
    working: (n) => `正在上传 ${n} 个文件。`, waiting: (n) => `${n} 个文件在等待。`,
    settling: "正在查看新文件…", restingHead: "上传已暂停。", toGo: (size) => `还剩 ${size}`, left: (time) => `约需 ${time}`,
    needsYou: (n) => `有 ${n} 件事需要您处理。`,
    offlineHead: "未连接。", offline: (time) => `后台程序没有应答。页面显示的是 ${time} 的情况，会自动重试。`,
    offlineFirst: "后台程序没有应答，页面会自动重试。",
    rests: "全部已暂停，直到您恢复。", restsUntil: (time) => `全部暂停至 ${time}。`,
    attention: "需要您处理", retryAll: "全部重试", retry: "重试", forget: "放弃", tryAgain: "再试一次", rescan: "重新扫描",
    askForget: (name) => `放弃 ${name}？文件保留在原处，但不会上传。`,
    outbox: "正在上传", more: (n) => `另有 ${n} 个文件`,
    emptyTitle: "没有等待上传的文件。", emptyText: "把文件放进以下任一文件夹，就会自动上传：",
    acknowledged: (sent, size) => `${sent} / ${size}`, stored: "已送达，正在收尾", queued: "排队中", begun: "正在传输",
    nextTry: (time) => `${time} 再试`, paused: "已暂停", hours: (time) => `等到 ${time}`, now: "立即上传",
    history: "已上传", noHistory: "上传过的文件和链接会列在这里。", older: "显示更早的",
    verified: "已与原文件核对", unlisted: "服务商的列表里已没有它", copied: "已复制", uncopied: "浏览器没有让页面复制：请再试一次。", copyUrl: "链接", copyMarkdown: "Markdown", copyHtml: "HTML",
    copyLabel: (what, name) => `复制 ${name} 的 ${what}`,
    speed: "速度", slow: "慢", unlimited: "不限速", configured: "按配置", pauseAll: "全部暂停",
    quarter: "15 分钟", hour: "1 小时", forever: "直到我恢复", pause: "暂停", resume: "恢复",
    providers: "服务商", watches: "文件夹",
    ready: "就绪", blocked: "账号被拒绝", resting: "已暂停", restingUntil: (time) => `暂停至 ${time}`,
    grant: (time) => `许可还剩 ${time}`, noGrant: "目前没有许可", pending: (n) => `${n} 个待传`,
    watching: "监视中", polling: "定时扫描", away: "文件夹不在", off: "关闭",
    files: (n) => `${n} 个文件`,
    tokenTitle: "此页面需要令牌", tokenText: "令牌写在配置文件的 [web] 中。", enter: "打开",
    failed: "操作没有成功。", pauseLabel: (name) => `暂停 ${name}`, resumeLabel: (name) => `恢复 ${name}`,
    day: "天", h: "小时", min: "分钟", sec: "秒",
  },
};

const remembered = localStorage.getItem("language");
let language = remembered in WORDS ? remembered : (navigator.languages ?? [navigator.language]).map((l) => l.slice(0, 2)).find((l) => l in WORDS) ?? "en";

export const current = () => language;

export function choose(name) {
  language = name;
  localStorage.setItem("language", name);
}

// A sentence of the daemon's as the page says it: in English where there is no other.
export const sentence = (text) => (language === "zh" && inChinese(text)) || text;

export function word(name, ...values) {
  const found = WORDS[language][name];
  return typeof found === "function" ? found(...values) : found;
}

const locale = () => (language === "zh" ? "zh-CN" : navigator.languages?.find((l) => l.startsWith("en")) ?? "en");

export const count = (n) => new Intl.NumberFormat(locale()).format(n);

export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) [bytes, unit] = [bytes / 1024, unit + 1];
  const digits = unit && bytes < 100 ? 1 : 0;
  return `${new Intl.NumberFormat(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(bytes)} ${units[unit]}`;
}

export function duration(seconds) {
  const [value, unit] = seconds >= 172800 ? [seconds / 86400, "day"] : seconds >= 5400 ? [seconds / 3600, "h"] : seconds >= 90 ? [seconds / 60, "min"] : [seconds, "sec"];
  return `${count(Math.max(1, Math.round(value)))} ${word(unit)}`;
}

// An hour alone for today, with the day otherwise.
export function clock(seconds) {
  const when = new Date(seconds * 1000);
  const today = when.toDateString() === new Date().toDateString();
  return new Intl.DateTimeFormat(locale(), today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" }).format(when);
}
