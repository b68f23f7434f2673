"""Google: Cloud KMS v1 (REST), the metadata server, the security token service, and IAM credentials, as far as we use them.

google_sdk.py drives the same stand-in with google-cloud-kms and google-auth, so that it cannot drift towards our own client.
"""

import base64
import os
import re
import time
from datetime import datetime, timedelta, timezone
from urllib.parse import unquote

import google_crc32c
from common import Refusal, Server
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY = "projects/p/locations/us-east1/keyRings/r/cryptoKeys/k"
AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/prov"
ACCOUNT = "node@p.iam.gserviceaccount.com"
STATES = {"ENABLED": 1, "DISABLED": 2, "DESTROYED": 3, "DESTROY_SCHEDULED": 4}
ENUMS = {
    "state": STATES, "protectionLevel": {"SOFTWARE": 1}, "algorithm": {"GOOGLE_SYMMETRIC_ENCRYPTION": 1},
    "purpose": {"ENCRYPT_DECRYPT": 1},
}


def crc(data):
    return str(google_crc32c.value(data))


def stamp(seconds=0):
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def error(code, status, message):
    return Refusal(code, {"error": {"code": code, "message": message, "status": status}})


def with_numbers(value):
    """The SDK asks for enumerations as numbers."""
    if isinstance(value, dict):
        return {k: ENUMS[k].get(v, v) if k in ENUMS and isinstance(v, str) else with_numbers(v) for k, v in value.items()}
    return [with_numbers(item) for item in value] if isinstance(value, list) else value


class Google:
    def __init__(self, cluster):
        self.cluster = cluster
        self.tokens = {}
        self.versions = {}
        self.primary = 0
        self.rotate()
        self.kms = Server(self.answer_kms)
        self.metadata = Server(self.answer_metadata)
        self.sts = Server(self.answer_sts)

    def issue(self, kind):
        token = f"ya29.{kind}.{os.urandom(12).hex()}"
        self.tokens[token] = (kind, time.time() + 3600)
        return token

    # What a test does to the key.

    def rotate(self):
        number = len(self.versions) + 1
        self.versions[number] = {"key": os.urandom(32), "state": "ENABLED", "created": stamp()}
        self.primary = number

    def set_state(self, state):
        for version in self.versions.values():
            version["state"] = state

    def revoke_tokens(self):
        self.tokens.clear()

    # Cloud KMS

    def describe_version(self, number):
        version = self.versions[number]
        return {
            "name": f"{KEY}/cryptoKeyVersions/{number}", "state": version["state"], "protectionLevel": "SOFTWARE",
            "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION", "createTime": version["created"], "generateTime": version["created"],
        }

    def describe_key(self):
        return {
            "name": KEY, "primary": self.describe_version(self.primary), "purpose": "ENCRYPT_DECRYPT", "createTime": stamp(),
            "versionTemplate": {"protectionLevel": "SOFTWARE", "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION"},
            "destroyScheduledDuration": "2592000s",
        }

    def usable(self, number):
        version = self.versions[number]
        if version["state"] != "ENABLED":
            name = f"{KEY}/cryptoKeyVersions/{number}"
            raise error(400, "FAILED_PRECONDITION", f"{name} is not enabled, current state is: {version['state']}.")
        return AESGCM(version["key"])

    def answer_kms(self, request):
        kind, end = self.tokens.get(request.bearer, ("", 0))
        if end < time.time():
            raise error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if kind == "federated":
            raise error(403, "PERMISSION_DENIED", f"Permission 'cloudkms.cryptoKeys.get' denied on resource '{KEY}'.")
        result = self.run(request)
        return with_numbers(result) if "enum-encoding=int" in unquote(str(request.query)) else result

    def run(self, request):
        match = re.fullmatch(r"/v1/(projects/[^:]*?/cryptoKeys/[^/:]+)(?:/cryptoKeyVersions(?:/(\d+))?)?(?::(\w+))?", request.path)
        if not match or match[1] != KEY:
            raise error(404, "NOT_FOUND", f"{request.path} not found.")
        _, number, action = match.groups()
        body = request.json
        if request.method == "GET":
            return self.describe_version(int(number)) if number else self.describe_key()
        if request.method == "PATCH" and number:
            names = {value: name for name, value in STATES.items()}
            self.versions[int(number)]["state"] = names.get(body["state"], body["state"])
            return self.describe_version(int(number))
        if action == "updatePrimaryVersion":
            self.primary = int(body["cryptoKeyVersionId"])
            return self.describe_key()
        if request.method == "POST" and request.path.endswith("/cryptoKeyVersions"):
            self.rotate()
            return self.describe_version(self.primary)
        if action == "encrypt":
            return self.encrypt(body, int(number or self.primary))
        if action == "decrypt":
            return self.decrypt(body)
        raise error(404, "NOT_FOUND", "no such method")

    @staticmethod
    def checked(body, field):
        data = base64.b64decode(body.get(field, ""))
        given = body.get(field + "Crc32c")
        if given is not None and str(given) != crc(data):
            raise error(400, "INVALID_ARGUMENT", f"The checksum in field {field}_crc32c did not match the data in field {field}.")
        return data, given is not None

    def encrypt(self, body, number):
        plaintext, plaintext_checked = self.checked(body, "plaintext")
        aad, aad_checked = self.checked(body, "additionalAuthenticatedData")
        if len(plaintext) > 65536 or len(aad) > 65536:
            raise error(400, "INVALID_ARGUMENT", "too long")
        nonce = os.urandom(12)
        ciphertext = b"\x0a\x24\x00" + number.to_bytes(4, "big") + nonce + self.usable(number).encrypt(nonce, plaintext, aad)
        return {
            "name": f"{KEY}/cryptoKeyVersions/{number}", "ciphertext": base64.b64encode(ciphertext).decode(),
            "ciphertextCrc32c": crc(ciphertext), "verifiedPlaintextCrc32c": plaintext_checked,
            "verifiedAdditionalAuthenticatedDataCrc32c": aad_checked, "protectionLevel": "SOFTWARE",
        }

    def decrypt(self, body):
        ciphertext, _ = self.checked(body, "ciphertext")
        aad, _ = self.checked(body, "additionalAuthenticatedData")
        failure = error(400, "INVALID_ARGUMENT", "Decryption failed: verify that 'name' refers to the correct CryptoKey.")
        number = int.from_bytes(ciphertext[3:7], "big")
        if number not in self.versions or len(ciphertext) < 35:
            raise failure
        try:
            plaintext = self.usable(number).decrypt(ciphertext[7:19], ciphertext[19:], aad)
        except InvalidTag:
            raise failure from None
        return {
            "plaintext": base64.b64encode(plaintext).decode(), "plaintextCrc32c": crc(plaintext),
            "usedPrimary": number == self.primary, "protectionLevel": "SOFTWARE",
        }

    # Identity

    def answer_metadata(self, request):
        headers = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
        if request.path == "/":
            return 200, "computeMetadata/\n", {**headers, "Content-Type": "application/text"}
        if request.headers.get("Metadata-Flavor") != "Google" or request.headers.get("X-Forwarded-For"):
            return 403, "Missing Metadata-Flavor:Google header.", {**headers, "Content-Type": "text/html"}
        base = "/computeMetadata/v1/"
        accounts = base + "instance/service-accounts/default/"
        if request.path == accounts + "token":
            return 200, {"access_token": self.issue("account"), "expires_in": 3599, "token_type": "Bearer"}, headers
        if request.path == accounts:
            scopes = ["https://www.googleapis.com/auth/cloud-platform"]
            return 200, {"aliases": ["default"], "email": ACCOUNT, "scopes": scopes}, headers
        texts = {base + "project/project-id": "p", base + "universe/universe-domain": "googleapis.com"}
        if request.path in texts:
            return 200, texts[request.path], {**headers, "Content-Type": "application/text"}
        return 404, "not found", {**headers, "Content-Type": "text/html"}

    def answer_sts(self, request):
        if request.path == "/v1/token":
            return self.exchange(request.form)
        match = re.fullmatch(r"/v1/projects/-/serviceAccounts/([^/:]+):generateAccessToken", request.path)
        if match and match[1] == ACCOUNT and self.tokens.get(request.bearer, ("", 0))[0] == "federated":
            return {"accessToken": self.issue("account"), "expireTime": stamp(3600)[:19] + "Z"}
        raise error(403, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.getAccessToken' denied.")

    def exchange(self, form):
        wanted = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "audience": AUDIENCE,
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        }
        for name, value in wanted.items():
            if form.get(name) != value:
                raise Refusal(400, {"error": "invalid_request", "error_description": f"bad {name}"})
        try:
            self.cluster.verify(form.get("subject_token", ""), f"https:{AUDIENCE}")
        except ValueError as reason:
            raise Refusal(400, {"error": "invalid_grant", "error_description": str(reason)}) from None
        # "direct" may use the key itself; "federated" only impersonates. Which one depends on the scope here.
        kind = "direct" if form.get("scope", "").endswith("/cloudkms") else "federated"
        return {
            "access_token": self.issue(kind), "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer", "expires_in": 3599,
        }
