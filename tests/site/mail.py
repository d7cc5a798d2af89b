"""Sends every sample message by SMTP, reads each back by IMAP and by POP3, compares byte for byte.

Arguments: host, SMTP port, IMAP port, POP3 port, user's address, password, directory of messages.
"""
import imaplib, pathlib, poplib, re, smtplib, sys

host, smtp_port, imap_port, pop3_port, user, password, directory = sys.argv[1:]


def crlf(raw):
    """As it goes over the wire: every line end is CRLF, the last line has one."""
    text = re.sub(rb"\r?\n", b"\r\n", raw)
    return text if text.endswith(b"\r\n") else text + b"\r\n"


def refusable(raw):
    """RFC 5321 section 2.3.8 and 4.5.3.1.6: what no server has to take."""
    return b"\0" in raw or re.search(rb"\r(?!\n)", raw) or any(len(line) > 998 for line in raw.split(b"\r\n"))


sent, refused = [], []
for path in sorted(pathlib.Path(directory).glob("*.eml")):
    raw = crlf(path.read_bytes())
    with smtplib.SMTP(host, int(smtp_port), timeout=30) as smtp:
        smtp.ehlo("client.example.org")
        smtp.mail("sender@example.org", ["BODY=8BITMIME"])
        code, text = smtp.rcpt(user)
        assert code == 250, (code, text)
        code, text = smtp.data(raw)
    if code == 250:
        sent.append((path.name, raw))
    else:
        assert 500 <= code < 600 and refusable(raw), (path.name, code, text)
        refused.append(path.name)
assert len(sent) > 50, len(sent)
assert refused == ["thirdparty-005.eml"], refused


def compare(name, raw, got, how):
    """The original, whole, at the end; before it trace headers and nothing else."""
    assert got.endswith(raw), (how, name, got[-200:], raw[-200:])
    trace = got[: len(got) - len(raw)]
    unfolded = re.sub(rb"\r\n[ \t]+", b" ", trace)
    names = [line.split(b":")[0] for line in unfolded.split(b"\r\n")[:-1]]
    assert names and set(names) <= {b"Return-Path", b"Delivered-To", b"Received"}, (how, name, names)
    assert names.count(b"Return-Path") == 1, (how, name, names)


imap = imaplib.IMAP4(host, int(imap_port))
imap.login(user, password)
typ, (count,) = imap.select("INBOX", readonly=True)
assert (typ, int(count)) == ("OK", len(sent)), (typ, count, len(sent))
for number, (name, raw) in enumerate(sent, 1):
    typ, data = imap.fetch(str(number), "(RFC822.SIZE BODY.PEEK[])")
    assert typ == "OK", (name, typ, data)
    size = int(re.search(rb"RFC822.SIZE (\d+)", data[0][0] + b" " + (data[1] if isinstance(data[1], bytes) else b"")).group(1))
    assert size == len(data[0][1]), (name, size, len(data[0][1]))
    compare(name, raw, data[0][1], "IMAP")
imap.logout()

# poplib limits the length of a line to 2048 octets, well above RFC 5322's 998.
pop3 = poplib.POP3(host, int(pop3_port), timeout=30)
pop3.user(user)
pop3.pass_(password)
assert pop3.stat()[0] == len(sent)
for number, (name, raw) in enumerate(sent, 1):
    _, lines, _ = pop3.retr(number)
    compare(name, raw, b"\r\n".join(lines) + b"\r\n", "POP3")
pop3.quit()
print(len(sent), "messages the same by IMAP and by POP3,", len(refused), "refused")
