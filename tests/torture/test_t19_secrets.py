"""T19: secrets that are planted everywhere stand nowhere afterwards, whatever failed and however it ended."""

from pathlib import Path

import ledger as judge
from ledger import PROVIDERS, Ledger
from program import Program

# An error in each layer: signing in, being granted, sending, finishing, following up, telling.
TROUBLE = (
    "vod.init:code-700@1,lbs.get:html@1,nos.put:403@1,nos.query:500@1,forms.token:401@1,forms.create:500@1,"
    "kodo.form:401@1,kodo.init:400@1,presign.sign:500@1,presign.put:403@1,jimeng.token:html@1,imagex.apply:403@1,"
    "tos.put:401@1,imagex.commit:500@1,oss.post:403@1,oss.begin:403@1,careyshop.login:inner-error@1,"
    "careyshop.upload:truncated@1,xinhua.jwt:401@1,xinhua.tokens:500@1,xinhua.task:400@1"
)


def test_t19_no_planted_secret_is_left_anywhere(program: Program) -> None:
    program.cold = True
    planted = judge.secrets(program)
    assert len(planted) > 8
    assert all(judge.forms(secret) for secret in planted)
    book = Ledger(program, "secrets")
    outputs: list[str] = []
    program.vendors.faults(TROUBLE)
    program.start()  # at debug level
    for provider in sorted(PROVIDERS):
        book.new(provider, 300_000)
    book.write("netease/large.mov", book.numbers.randbytes(9 << 20))
    program.until(lambda: len({one["fault"] for one in program.vendors.log() if one["fault"]}) >= 4)
    assert program.daemon is not None
    pid = program.daemon.pid
    shown = judge.leaks(planted, judge.told_to_others(pid))
    for words in (("status",), ("--json", "status"), ("failed",), ("history",), ("doctor",), ("check",), ("-v", "ls")):
        done = program(*words)
        outputs += [done.stdout, done.stderr]
    program.kill()
    core = [path for path in program.folder.rglob("core*") if path.is_file()]
    program.start()
    assert program("retry", "--all").returncode == 0
    program("wait", "--timeout", "4s")
    said = program.folder / "said"
    said.write_text("".join(outputs))
    left = judge.leaks(planted, [program.state, program.folder / "cache", program.log, said, program.drop])
    assert shown + left + core == []
    assert program.stop() == 0
    assert judge.leaks(planted, [program.state, program.log]) == []
    assert "Traceback" not in program.log.read_text()


def test_t19_the_sweep_itself_finds_what_is_hidden(tmp_path: Path) -> None:
    secret = "s3cret/with+signs=="
    for number, form in enumerate(judge.forms(secret)):
        (tmp_path / str(number)).write_bytes(b"before" + form + b"after")
    assert len({line.rpartition("/")[2] for line in judge.leaks([secret], [tmp_path])}) == len(judge.forms(secret))
    assert judge.leaks(["another"], [tmp_path]) == []
