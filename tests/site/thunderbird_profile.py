# Makes a Thunderbird profile with one IMAP account and its password, so that it logs in without asking anyone.
# Arguments: directory of the profile, address and port of IMAP, user, password. The password is put into the profile's
# store by Thunderbird's own NSS, as Thunderbird does it.
import base64, ctypes, json, os, sys

profile, host, port, user, password = sys.argv[1:6]
LIB = "/usr/lib/thunderbird/"
# Its own libraries before the system's, which are older.
ctypes.CDLL(LIB + "libnssutil3.so", mode=ctypes.RTLD_GLOBAL)
nss = ctypes.CDLL(LIB + "libnss3.so", mode=ctypes.RTLD_GLOBAL)


class Item(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint), ("data", ctypes.c_void_p), ("len", ctypes.c_uint)]


def encrypted(text):
    raw = text.encode()
    held = ctypes.create_string_buffer(raw, len(raw))
    clear, out, default_key = Item(0, ctypes.cast(held, ctypes.c_void_p), len(raw)), Item(0, None, 0), Item(0, None, 0)
    assert nss.PK11SDR_Encrypt(ctypes.byref(default_key), ctypes.byref(clear), ctypes.byref(out), None) == 0
    return base64.b64encode(ctypes.string_at(out.data, out.len)).decode()


os.makedirs(profile)
assert nss.NSS_InitReadWrite(("sql:" + profile).encode()) == 0
nss.PK11_GetInternalKeySlot.restype = ctypes.c_void_p
assert nss.PK11_InitPin(ctypes.c_void_p(nss.PK11_GetInternalKeySlot()), b"", b"") == 0
login = {
    "id": 1, "guid": "{a7c5a7c5-0000-4000-8000-000000000001}", "encType": 1, "timesUsed": 1,
    "hostname": "imap://" + host, "httpRealm": "imap://" + host, "formSubmitURL": None, "usernameField": "", "passwordField": "",
    "encryptedUsername": encrypted(user), "encryptedPassword": encrypted(password),
    "timeCreated": 1700000000000, "timeLastUsed": 1700000000000, "timePasswordChanged": 1700000000000,
}
nss.NSS_Shutdown()
with open(profile + "/logins.json", "w") as out:
    json.dump({"nextId": 2, "logins": [login], "version": 3}, out)

server, local = "mail.server.server1.", "mail.server.server2."
prefs = {
    "mail.accountmanager.accounts": "account1,account2",
    "mail.accountmanager.defaultaccount": "account1",
    "mail.accountmanager.localfoldersserver": "server2",
    "mail.account.account1.server": "server1",
    "mail.account.account1.identities": "id1",
    "mail.account.account2.server": "server2",
    "mail.identity.id1.useremail": user,
    "mail.identity.id1.fullName": "U",
    "mail.identity.id1.valid": True,
    server + "type": "imap", server + "hostname": host, server + "port": int(port),
    server + "userName": user, server + "name": user,
    server + "socketType": 0, server + "authMethod": 3,  # in the clear, by password
    server + "login_at_startup": True, server + "check_new_mail": True,
    server + "offline_download": True, server + "autosync_offline_stores": True,
    server + "directory-rel": "[ProfD]ImapMail/fife",
    local + "type": "none", local + "hostname": "Local Folders", local + "userName": "nobody",
    local + "name": "Local Folders", local + "directory-rel": "[ProfD]Mail/Local",
    # Nothing that asks questions, and nothing that calls home.
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.rights.version": 1,
    "mail.shell.checkDefaultClient": False,
    "mail.inappnotifications.enabled": False,
    "mailnews.start_page.enabled": False,
    "mailnews.start_page_override.mstone": "ignore",
    "mailnews.database.global.indexer.enabled": False,
    "app.donation.eoy.version.viewed": 999,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "toolkit.telemetry.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "http://127.0.0.1:1/",
}
with open(profile + "/prefs.js", "w") as out:
    for name, value in prefs.items():
        out.write("user_pref(%s, %s);\n" % (json.dumps(name), json.dumps(value)))
