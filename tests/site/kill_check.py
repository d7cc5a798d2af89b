"""Every acknowledged message is in INBOX once; no message is there twice.

Arguments: host, IMAP port, user's address, password, acknowledged ids (a line each).
"""
import collections, imaplib, re, sys, time

host, port, user, password, acknowledged = sys.argv[1:]
acknowledged = acknowledged.split()
deadline = time.monotonic() + 60
while True:
    imap = imaplib.IMAP4(host, int(port), timeout=60)
    imap.login(user, password)
    imap.select("INBOX", readonly=True)
    typ, data = imap.fetch("1:*", "(UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    assert typ == "OK", data
    found = collections.Counter(
        re.search(rb"Subject: (\S+)", item[1]).group(1).decode() for item in data if isinstance(item, tuple)
    )
    uids = [int(re.search(rb"UID (\d+)", item[0]).group(1)) for item in data if isinstance(item, tuple)]
    assert uids == sorted(set(uids)), "UIDs ascend and are used once"
    imap.logout()
    missing = [name for name in acknowledged if found[name] == 0]
    # What was taken into the queue while mailboxes were away is delivered a little later.
    if not missing or time.monotonic() > deadline:
        break
    time.sleep(0.5)
twice = [name for name, count in found.items() if count > 1]
assert len(set(acknowledged)) == len(acknowledged)
assert not missing, f"{len(missing)} acknowledged messages are missing: {missing[:10]}"
assert not twice, f"{len(twice)} messages are there twice: {twice[:10]}"
print(len(acknowledged), "acknowledged,", sum(found.values()), "found, none missing, none twice")
