"""The network: requests at the vendor's pace, the bytes of files, where a connection may lead, and when the network changed."""
