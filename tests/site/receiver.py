"""An SMTP server of another site, which writes down what it took.

receiver.py IP PORT FILE EXTENSION…    Recipients tell it how to behave: `later@` is put off, `never@` is refused; the first two
times, `drop@` makes it close the connection after the message, `bye@` makes it say 421 at RCPT. Each message taken is a line of JSON in FILE, flushed before 250.
"""
import json, os, socket, socketserver, sys, threading

ip, port, path, *extensions = sys.argv[1:]
lock = threading.Lock()
log = open(path, "ab", buffering=0)
patience = {"bye": 2, "drop": 2}


def behaves_badly(how, text):
    with lock:
        bad = f"<{how}@" in text and patience[how] > 0
        patience[how] -= bad
        return bad


class Session(socketserver.StreamRequestHandler):
    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self):
        try:
            self.converse()
        except (ConnectionError, BrokenPipeError):
            pass

    def converse(self):
        self.say("220 receiver ESMTP")
        mail, rcpts, drop = "", [], False
        number = 0
        while line := self.rfile.readline():
            text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            verb = text[:4].upper()
            if verb == "EHLO" and "NOEHLO" in extensions:
                self.say("502 5.5.1 what?")
            elif verb == "EHLO":
                self.say("250-receiver")
                for extension in extensions:
                    self.say("250-" + extension)
                self.say("250 HELP")
            elif verb == "HELO":
                self.say("250 receiver")
            elif verb == "MAIL":
                mail, rcpts, drop = text, [], False
                self.say("250 2.1.0 ok")
            elif verb == "RCPT":
                if behaves_badly("bye", text):
                    self.say("421 4.3.2 going away")
                    return
                if "<later@" in text:
                    self.say("450 4.2.0 later")
                elif "<never@" in text:
                    self.say("550 5.1.1 never")
                else:
                    drop = drop or behaves_badly("drop", text)
                    rcpts.append(text)
                    self.say("250 2.1.5 ok")
            elif verb == "DATA":
                if not rcpts:
                    self.say("503 5.5.1 nobody")
                    continue
                self.say("354 go")
                body = []
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    body.append(line[1:] if line.startswith(b".") else line)
                if line == b"":
                    return
                number += 1
                entry = {"mail": mail, "rcpt": rcpts, "nth": number,
                         "text": b"".join(body).decode("utf-8", "surrogateescape")}
                with lock:
                    log.write(json.dumps(entry).encode() + b"\n")
                if drop:
                    return
                self.say("250 2.0.0 taken")
            elif verb == "STAR":
                # It offers what it cannot do; with INJECT, somebody in between puts in a reply.
                self.say("220 go\r\n250 injected" if "INJECT" in extensions else "220 go")
                return
            elif verb == "RSET":
                mail, rcpts = "", []
                self.say("250 ok")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("500 5.5.2 what?")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512
    address_family = socket.AF_INET6 if ":" in ip else socket.AF_INET


with Server((ip, int(port)), Session) as server:
    print("ready", flush=True)
    server.serve_forever()
