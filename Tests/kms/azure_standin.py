"""Azure: Key Vault keys (TLS), IMDS, and Entra ID (TLS), as far as we use them.

azure_sdk.py drives the same stand-in with azure-keyvault-keys and azure-identity, so that it cannot drift towards our own client.
"""

import os
import time
import uuid

from common import Refusal, Server, b64url, unb64url
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import padding, rsa

TENANT = "11111111-1111-1111-1111-111111111111"
CLIENT = "22222222-2222-2222-2222-222222222222"
RESOURCE = "https://vault.azure.net"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def error(status, code, message, inner=None):
    body = {"code": code, "message": message}
    if inner:
        body["innererror"] = {"code": inner}
    return Refusal(status, {"error": body})


class Azure:
    def __init__(self, cluster, certificate, key):
        self.cluster = cluster
        self.tokens = {}
        self.keys = {"kek": {}, "aeskek": {}}
        self.deleted = set()
        self.rotate("kek")
        self.rotate("aeskek")
        self.vault = Server(self.answer_vault, (certificate, key))
        self.imds = Server(self.answer_imds)
        self.entra = Server(self.answer_entra, (certificate, key))

    def issue(self):
        token = "az." + uuid.uuid4().hex
        self.tokens[token] = time.time() + 3600
        return token

    # What a test does to the key.

    def rotate(self, name="kek"):
        material = os.urandom(32) if name == "aeskek" else rsa.generate_private_key(65537, 2048)
        version = uuid.uuid4().hex
        self.keys[name][version] = {"material": material, "enabled": True, "created": int(time.time())}
        return version

    def set_enabled(self, enabled, name="kek"):
        for version in self.keys[name].values():
            version["enabled"] = enabled

    def revoke_tokens(self):
        self.tokens.clear()

    # Key Vault

    def describe(self, name, version):
        key = self.keys[name][version]
        jwk = {"kid": f"{self.vault.base}/keys/{name}/{version}", "key_ops": ["wrapKey", "unwrapKey"]}
        if name == "aeskek":
            jwk["kty"] = "oct-HSM"
        else:
            numbers = key["material"].public_key().public_numbers()
            jwk.update(kty="RSA", n=b64url(numbers.n.to_bytes(256, "big")), e=b64url(b"\x01\x00\x01"))
        times = {"created": key["created"], "updated": key["created"]}
        return {"key": jwk, "attributes": {"enabled": key["enabled"], "recoveryLevel": "Recoverable+Purgeable", **times}}

    def answer_vault(self, request):
        if self.tokens.get(request.bearer, 0) < time.time():
            challenge = f'Bearer authorization="{self.entra.base}/{TENANT}", resource="{RESOURCE}"'
            body = {"error": {"code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer or PoP token."}}
            return 401, body, {"WWW-Authenticate": challenge}
        if "api-version" not in request.query:
            raise error(400, "BadParameter", "api-version must be specified")
        parts = request.path.strip("/").split("/")
        if parts[0] == "deletedkeys" and len(parts) == 2:
            if parts[1] in self.deleted:
                return {"recoveryId": f"{self.vault.base}/deletedkeys/{parts[1]}", "scheduledPurgeDate": int(time.time()) + 86400}
            raise error(404, "KeyNotFound", f"Deleted Key not found: {parts[1]}")
        if parts[0] != "keys" or len(parts) < 2 or parts[1] not in self.keys or parts[1] in self.deleted:
            raise error(
                404, "KeyNotFound",
                f"A key with (name/id) {'/'.join(parts[1:])} was not found in this key vault. If you recently deleted this key you "
                "may be able to recover it using the correct recovery command.",
            )
        name, rest = parts[1], parts[2:]
        if rest == ["rotate"] and request.method == "POST":
            return self.describe(name, self.rotate(name))
        if rest == ["versions"]:
            items = [self.describe(name, version) for version in self.keys[name]]
            return {"value": [{"kid": i["key"]["kid"], "attributes": i["attributes"]} for i in items], "nextLink": None}
        action = rest.pop() if rest and rest[-1] in ("wrapkey", "unwrapkey") else None
        version = rest[0] if rest and rest[0] else list(self.keys[name])[-1]
        if version not in self.keys[name]:
            raise error(404, "KeyNotFound", "no such version")
        if request.method == "PATCH":
            self.keys[name][version]["enabled"] = request.json["attributes"]["enabled"]
            return self.describe(name, version)
        if not self.keys[name][version]["enabled"]:
            raise error(403, "Forbidden", f"Operation {action or 'get'} is not allowed on a disabled key.", "KeyDisabled")
        return self.operate(name, version, action, request.json) if action else self.describe(name, version)

    def operate(self, name, version, action, body):
        material, value, algorithm = self.keys[name][version]["material"], unb64url(body["value"]), body["alg"]
        if algorithm != ("A256KW" if name == "aeskek" else "RSA-OAEP-256"):
            raise error(400, "BadParameter", f"Key and signing key properties are not compatible: {algorithm}")
        try:
            if name == "aeskek":
                result = (keywrap.aes_key_wrap if action == "wrapkey" else keywrap.aes_key_unwrap)(material, value)
            elif action == "wrapkey":
                result = material.public_key().encrypt(value, OAEP)
            else:
                result = material.decrypt(value, OAEP)
        except Exception:
            raise error(400, "BadParameter", "The parameter is incorrect.") from None
        return {"kid": f"{self.vault.base}/keys/{name}/{version}", "value": b64url(result)}

    # Identity

    def answer_imds(self, request):
        if request.path != "/metadata/identity/oauth2/token":
            raise Refusal(404, {"error": "not_found"})
        if (request.headers.get("Metadata") or "").lower() != "true" or request.headers.get("X-Forwarded-For"):
            raise Refusal(400, {"error": "invalid_request", "error_description": "Required metadata header not specified"})
        if request.query.get("resource") != RESOURCE:
            raise Refusal(400, {"error": "invalid_resource"})
        end = int(time.time()) + 86399
        return {
            "access_token": self.issue(), "client_id": CLIENT, "expires_in": "86399", "expires_on": str(end),
            "ext_expires_in": "86399", "not_before": str(end - 86400), "resource": RESOURCE, "token_type": "Bearer",
        }

    def answer_entra(self, request):
        base = f"{self.entra.base}/{TENANT}"
        if request.path.endswith("/.well-known/openid-configuration"):
            return {
                "issuer": f"{base}/v2.0", "token_endpoint": f"{base}/oauth2/v2.0/token",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            }
        form = request.form
        if request.path != f"/{TENANT}/oauth2/v2.0/token" or form.get("grant_type") != "client_credentials":
            raise Refusal(400, {"error": "invalid_request", "error_description": "AADSTS900144"})
        if form.get("scope") not in (f"{RESOURCE}/.default", f"{RESOURCE}/.default openid profile offline_access"):
            raise Refusal(400, {"error": "invalid_scope", "error_description": "AADSTS70011"})
        try:
            if form.get("client_id") != CLIENT or form.get("client_assertion_type") != ASSERTION:
                raise ValueError("AADSTS700016: no such application")
            self.cluster.verify(form.get("client_assertion", ""), "api://AzureADTokenExchange")
        except ValueError as reason:
            raise Refusal(401, {"error": "invalid_client", "error_description": f"AADSTS700211: {reason}"}) from None
        return {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": self.issue()}
