"""The life of a mailbox, lived with Python's imaplib.

Usage: lifecycle.py HOST PORT CERTIFICATE USER PASSWORD

Each answer is compared with what it has to be; the first that differs ends the program with its
line and both values.
"""

import imaplib
import re
import ssl
import sys

host, port, certificate, user, password = sys.argv[1:]

OLD = "01-Jan-2001 12:34:56 +0200"
MAIL = b"From: a@test.example\r\nTo: b@test.example\r\nSubject: %s\r\n\r\nBody of %s\r\n"


def want(got, expected):
    if got != expected:
        raise AssertionError(f"got {got!r}, not {expected!r}")


def ok(answer):
    """The data of an answer that has to be OK."""
    want(answer[0], "OK")
    return answer[1]


def no(answer, code):
    """Wants a NO with a response code."""
    want(answer[0], "NO")
    want(answer[1][0].split(b"]")[0], b"[" + code)


def flags(response):
    return sorted(imaplib.ParseFlags(response))


def names(listed):
    """The mailboxes of LIST or LSUB, by their attributes."""
    found = {}
    for line in listed:
        attributes, separator, name = re.fullmatch(rb'\(([^)]*)\) "(.)" "?([^"]*)"?', line).groups()
        want(separator, b".")
        found[name.decode()] = set(attributes.decode().split())
    return found


context = ssl.create_default_context(cafile=certificate)
c = imaplib.IMAP4(host, int(port))
ok(c.starttls(context))
try:
    c.login(user, "wrong")
    raise AssertionError("logged in with a wrong password")
except imaplib.IMAP4.error as e:
    want("AUTHENTICATIONFAILED" in str(e), True)
ok(c.login(user, password))

# CREATE, SUBSCRIBE, LIST, LSUB
ok(c.create("Life"))
no(c.create("Life"), b"ALREADYEXISTS")
ok(c.create("Life.Gr&APwA3w-e"))
ok(c.subscribe("Life"))
ok(c.subscribe("Life.Gr&APwA3w-e"))
listed = names(ok(c.list('""', "Life*")))
want(sorted(listed), ["Life", "Life.Gr&APwA3w-e"])
want(r"\HasChildren" in listed["Life"], True)
want(sorted(names(ok(c.list('""', "%")))), ["INBOX", "Life"])
want(sorted(names(ok(c.lsub('""', "*")))), ["Life", "Life.Gr&APwA3w-e"])
ok(c.unsubscribe("Life.Gr&APwA3w-e"))
want(sorted(names(ok(c.lsub('""', "*")))), ["Life"])

# APPEND with flags and date
for i, (f, date) in enumerate([(r"(\Seen Important)", f'"{OLD}"'), (r"(\Flagged)", None), (None, None)]):
    word = b"one two three".split()[i]
    data = ok(c.append("Life", f, date, MAIL % (word, word)))
    want(re.fullmatch(rb"\[APPENDUID \d+ %d\] .*" % (i + 1), data[0]) is not None, True)
no(c.append("Nowhere", None, None, MAIL % (b"x", b"x")), b"TRYCREATE")
want(ok(c.status("Life", "(MESSAGES UIDNEXT UNSEEN)")), [b'"Life" (MESSAGES 3 UIDNEXT 4 UNSEEN 2)'])

# SELECT, FETCH
want(ok(c.select("Life")), [b"3"])
want(c.response("UIDNEXT"), ("UIDNEXT", [b"4"]))
validity = c.response("UIDVALIDITY")[1][0]
want(rb"\*" in c.response("PERMANENTFLAGS")[1][0], True)
data = ok(c.fetch("1", "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])"))
head, body = data[0]
want(body, MAIL % (b"one", b"one"))
want(b"UID 1 " in head, True)
want(b"RFC822.SIZE %d " % len(body) in head, True)
want([f for f in flags(head) if f != rb"\Recent"], [b"Important", rb"\Seen"])
date = imaplib.Internaldate2tuple(head)
want(date, imaplib.Internaldate2tuple(f'INTERNALDATE "{OLD}"'.encode()))
data = ok(c.fetch("2", "(ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY.PEEK[TEXT]<5.2>)"))
want(b'"two"' in data[0][0] + data[1][0], True)
want([part[1] for part in data if isinstance(part, tuple)], [b"Subject: two\r\n\r\n", b"of"])
want(flags(ok(c.fetch("3", "FLAGS"))[0]) in ([], [rb"\Recent"]), True)
ok(c.fetch("3", "(BODY[TEXT])"))
want(rb"\Seen" in flags(ok(c.fetch("3", "FLAGS"))[0]), True)

# STORE with keywords
want([f for f in flags(ok(c.store("2", "+FLAGS", r"($Forwarded later)"))[0]) if f != rb"\Recent"],
     [b"$Forwarded", rb"\Flagged", b"later"])
want(ok(c.store("2", "-FLAGS.SILENT", r"(later)")), [None])
want([f for f in flags(ok(c.fetch("2", "FLAGS"))[0]) if f != rb"\Recent"], [b"$Forwarded", rb"\Flagged"])
want([f for f in flags(ok(c.store("1", "FLAGS", r"(\Answered)"))[0]) if f != rb"\Recent"], [rb"\Answered"])

# SEARCH
for criteria, found in [
    ("ALL", b"1 2 3"),
    ("ANSWERED", b"1"),
    ("KEYWORD $Forwarded", b"2"),
    ("UNKEYWORD $Forwarded", b"1 3"),
    ("UNSEEN", b"1 2"),
    ('SUBJECT "two"', b"2"),
    ('OR BODY "three" FROM "nobody"', b"3"),
    ("NOT TO b@test.example", b""),
    ("BEFORE 1-Feb-2001", b"1"),
    ("2:* SMALLER 1000000 NOT FLAGGED", b"3"),
]:
    try:
        want(ok(c.search(None, criteria)), [found])
    except AssertionError as e:
        raise AssertionError(f"SEARCH {criteria}: {e}") from None
want(ok(c.search("UTF-8", 'SUBJECT "two"')), [b"2"])

# COPY, MOVE, EXPUNGE
ok(c.copy("1:2", "Life.Gr&APwA3w-e"))
want(re.fullmatch(rb"\d+ 1:2 1:2", c.response("COPYUID")[1][0]) is not None, True)
no(c.copy("1", "Nowhere"), b"TRYCREATE")
ok(c.uid("MOVE", "3", "Life.Gr&APwA3w-e"))
want(ok(c.select("Life")), [b"2"])
ok(c.store("1", "+FLAGS", r"(\Deleted)"))
want(ok(c.expunge()), [b"1"])
want(ok(c.uid("FETCH", "1:*", "UID")), [b"1 (UID 2)"])
ok(c.uid("STORE", "2", "+FLAGS", r"(\Deleted)"))
ok(c.close())
want(ok(c.select("Life", readonly=True)), [b"0"])
want(c.response("UIDVALIDITY")[1][0], validity)
want(c.response("UIDNEXT"), ("UIDNEXT", [b"4"]))
want(ok(c.select("Life.Gr&APwA3w-e")), [b"3"])
data = ok(c.fetch("1:3", "(FLAGS BODY.PEEK[])"))
want([part[1] for part in data if isinstance(part, tuple)], [MAIL % (w, w) for w in (b"one", b"two", b"three")])
want(b"$Forwarded" in data[2][0], True)
ok(c.unselect())

# RENAME, DELETE
ok(c.rename("Life", "Afterlife"))
no(c.rename("Life", "Anything"), b"NEWNAME Life Afterlife")
want(sorted(names(ok(c.list('""', "*life*")))), ["Afterlife", "Afterlife.Gr&APwA3w-e"])
want(ok(c.status("Afterlife", "(UIDVALIDITY)")), [b'"Afterlife" (UIDVALIDITY ' + validity + b")"])
want(ok(c.select("Afterlife.Gr&APwA3w-e")), [b"3"])
ok(c.close())
ok(c.delete("Afterlife"))
no(c.select("Afterlife"), b"NONEXISTENT")
listed = names(ok(c.list('""', "*life*")))
want(r"\Noselect" in listed.get("Afterlife", {r"\Noselect"}) or r"\NonExistent" in listed["Afterlife"], True)
ok(c.delete("Afterlife.Gr&APwA3w-e"))
want(ok(c.list('""', "*life*")), [None])
no(c.delete("INBOX"), b"CANNOT")
ok(c.unsubscribe("Life"))
want(ok(c.noop()), [b"NOOP completed"])
want(c.logout()[0], "BYE")
