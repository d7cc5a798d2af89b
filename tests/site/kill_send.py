"""Senders that never stop for a dead server: each prints the id of a message once it was acknowledged.

Arguments: host, SMTP port, IMAP port, user's address, password, number of senders. One sender in four appends by IMAP,
the others send by SMTP. Ends when standard input ends.
"""
import imaplib, smtplib, sys, threading, time

host, smtp_port, imap_port, user, password, senders = sys.argv[1:]
stop = threading.Event()
printing = threading.Lock()


def message(name):
    return f"From: a@example.org\r\nTo: {user}\r\nSubject: {name}\r\nMessage-ID: <{name}@example.org>\r\n\r\n{'x' * 2000}\r\n".encode()


def send_smtp(name, state):
    if state.get("smtp") is None:
        state["smtp"] = smtplib.SMTP(host, int(smtp_port), timeout=20)
    state["smtp"].sendmail("a@example.org", [user], message(name))


def append_imap(name, state):
    if state.get("imap") is None:
        state["imap"] = imaplib.IMAP4(host, int(imap_port), timeout=20)
        state["imap"].login(user, password)
    typ, data = state["imap"].append("INBOX", None, None, message(name))
    if typ != "OK":
        raise OSError(data)


def sender(number):
    state, count = {}, 0
    act = append_imap if number % 4 == 0 else send_smtp
    while not stop.is_set():
        count += 1
        name = f"m-{number}-{count}"
        try:
            act(name, state)
        except (OSError, smtplib.SMTPException, imaplib.IMAP4.error):
            # Unknown fate: this id is not counted as acknowledged, the next message has another.
            state = {}
            time.sleep(0.05)
            continue
        with printing:
            print(name, flush=True)


threads = [threading.Thread(target=sender, args=(number,)) for number in range(int(senders))]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
