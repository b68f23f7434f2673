#!/usr/bin/env python3
"""Starts every KMS that the tests and the demo use, on loopback, and says where they are.

    servers.py COMMAND...    runs the command with KMS_SERVERS naming a JSON file that describes them, then stops them

`POST /PROVIDER/ACTION` on the control server does something to a key: rotate, disable, enable, delete, restore, revoke.
`POST /all/unwrap` unwraps a DEK with the official SDK, `POST /all/relay` makes the servers reachable in network namespaces.
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from aws_standin import AWS, POD_TOKEN
from azure_standin import CLIENT, RESOURCE, TENANT, Azure
from common import Cluster, Refusal, Server, make_certificates
from google_standin import ACCOUNT, AUDIENCE, KEY, Google
from openbao_server import OpenBao


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Servers:
    def __init__(self, folder):
        self.folder = folder
        self.cluster = Cluster()
        self.ca, certificate, key = make_certificates(folder)
        self.google = Google(self.cluster)
        self.azure = Azure(self.cluster, certificate, key)
        self.aws = AWS(self.cluster)
        self.openbao = OpenBao(self.cluster, folder, free_port(), self.ca, certificate, key)
        self.control = Server(self.answer)

    def stop(self):
        self.openbao.stop()
        self.aws.moto.stop()

    def file(self, name, content):
        path = self.folder / name
        path.write_text(content)
        path.chmod(0o600)
        return str(path)

    def answer(self, request):
        _, provider, action = request.path.split("/")
        if provider == "all":
            return {"unwrap": self.unwrap, "relay": self.relay}[action](request.json)
        a, g, z, o = self.aws, self.google, self.azure, self.openbao
        actions = {
            "aws": {
                "rotate": a.rotate, "disable": lambda: a.set_enabled(False), "enable": lambda: a.set_enabled(True),
                "delete": a.schedule_deletion, "restore": a.cancel_deletion, "revoke": a.revoke_tokens,
            },
            "gcp": {
                "rotate": g.rotate, "disable": lambda: g.set_state("DISABLED"), "enable": lambda: g.set_state("ENABLED"),
                "delete": lambda: g.set_state("DESTROY_SCHEDULED"), "restore": lambda: g.set_state("ENABLED"),
                "revoke": g.revoke_tokens,
            },
            "azure": {
                "rotate": z.rotate, "disable": lambda: z.set_enabled(False), "enable": lambda: z.set_enabled(True),
                "delete": lambda: z.deleted.add("kek"), "restore": lambda: z.deleted.discard("kek"), "revoke": z.revoke_tokens,
            },
            "openbao": {
                "rotate": o.rotate, "disable": lambda: o.set_enabled(False), "enable": lambda: o.set_enabled(True),
                "delete": o.soft_delete, "restore": o.restore, "revoke": o.revoke_tokens,
            },
        }
        if action not in actions.get(provider, {}):
            raise Refusal(404, {"error": "no such action"})
        actions[provider][action]()
        return {}

    def unwrap(self, body):
        import independent_unwrap

        blob, cluster = base64.b64decode(body["blob"]), bytes.fromhex(body["cluster"])
        return {"dek": independent_unwrap.unwrap(self, blob, cluster, body["epoch"]).hex()}

    def relay(self, body):
        import relay

        a, g, z = self.aws, self.google, self.azure
        bases = [a.base, a.metadata.base, self.openbao.base] + [
            server.base for server in (g.kms, g.metadata, g.sts, z.vault, z.imds, z.entra)
        ]
        for namespace in body["namespaces"]:
            relay.relay(namespace, [int(base.rsplit(":", 1)[1]) for base in bases])
        return {}

    def description(self):
        """Every way to reach every KMS: the `kms` section of a node's configuration and its environment."""
        token = self.cluster.token
        aws_token = self.file("aws-token", token("sts.amazonaws.com"))
        google_token = self.file("google-token", token("https:" + AUDIENCE))
        azure_token = self.file("azure-token", token("api://AzureADTokenExchange"))
        bao_jwt = self.file("bao-jwt", token("openbao"))
        aws = {"key": self.aws.arn, "endpoint": self.aws.base}
        google = {"key": KEY, "endpoint": self.google.kms.base}
        federation = {"source": "federation", "audience": AUDIENCE, "tokenFile": google_token, "stsEndpoint": self.google.sts.base}
        azure = {"vault": self.azure.vault.base, "key": "kek", "resource": RESOURCE}
        workload = {
            "source": "workload-identity", "clientID": CLIENT, "tenantID": TENANT, "tokenFile": azure_token,
            "endpoint": self.azure.entra.base,
        }
        bao = {"address": self.openbao.base, "key": "kek"}
        metadata = self.aws.metadata.base

        def case(name, provider, section, identity, environment=None, **more):
            kms = {"provider": provider, provider: {**section, **({"identity": identity} if identity else {})}}
            if provider == "azure":
                kms["caFile"] = self.ca
            text = json.dumps(kms)
            return {"name": name, "provider": provider, "kms": kms, "text": text, "environment": environment or {}, **more}

        web = {"source": "web-identity", "roleARN": self.aws.role, "tokenFile": aws_token, "endpoint": self.aws.base}
        return {
            "control": self.control.base,
            "cases": [
                case("aws: web identity (IRSA)", "aws", aws, web, primary=True, secretFiles=[aws_token]),
                case("aws: EKS Pod Identity", "aws", aws, None, {
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI": metadata + "/v1/credentials",
                    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": self.file("pod-token", POD_TOKEN)}),
                case("aws: ECS", "aws", aws, {"source": "container", "endpoint": metadata + "/v2/credentials/task"}),
                case("aws: IMDSv2", "aws", aws, {"source": "instance", "endpoint": metadata}),
                case("aws: environment", "aws", aws, None, {
                    "AWS_ACCESS_KEY_ID": self.aws.admin[0], "AWS_SECRET_ACCESS_KEY": self.aws.admin[1]}),
                case("aws: role without permission", "aws", aws, {**web, "roleARN": self.aws.other_role}, refusal="denied"),
                case("aws: expired token", "aws", aws,
                     {**web, "tokenFile": self.file("aws-expired", token("sts.amazonaws.com", -5))}, refusal="expired-token"),
                case("gcp: metadata server", "gcp", google, {"source": "metadata", "metadataEndpoint": self.google.metadata.base},
                     primary=True),
                case("gcp: federation", "gcp", google, federation),
                case("gcp: impersonation", "gcp", google,
                     {**federation, "serviceAccount": ACCOUNT, "iamEndpoint": self.google.sts.base}),
                case("gcp: expired token", "gcp", google,
                     {**federation, "tokenFile": self.file("gcp-expired", token("https:" + AUDIENCE, -5))}, refusal="expired-token"),
                case("azure: workload identity", "azure", azure, workload, primary=True, secretFiles=[azure_token]),
                case("azure: managed identity", "azure", azure, {"source": "managed-identity", "endpoint": self.azure.imds.base}),
                case("azure: managed HSM key", "azure", {**azure, "key": "aeskek", "algorithm": "A256KW"}, workload),
                case("azure: foreign token", "azure", azure,
                     {**workload, "tokenFile": self.file("azure-foreign", Cluster().token("api://AzureADTokenExchange"))},
                     refusal="denied"),
                case("openbao: JWT", "openbao", bao, {"source": "jwt", "role": "node", "tokenFile": bao_jwt}, primary=True,
                     secretFiles=[bao_jwt]),
                case("openbao: Kubernetes", "openbao", bao, {"source": "kubernetes", "role": "node", "tokenFile": bao_jwt}),
                case("openbao: token file", "openbao", bao,
                     {"source": "token", "tokenFile": self.file("bao-token", self.openbao.new_token())}),
                case("openbao: role without permission", "openbao", bao,
                     {"source": "jwt", "role": "nobody", "tokenFile": bao_jwt}, refusal="denied"),
                case("openbao: bad token", "openbao", bao,
                     {"source": "token", "tokenFile": self.file("bao-bad", "s.nosuchtoken")}, refusal="expired-token"),
            ],
        }


def main():
    folder = Path(tempfile.mkdtemp(prefix="xdp-encryptor-kms-servers-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    servers = None
    try:
        servers = Servers(folder)
        # The official SDKs read these, some of them when they are imported.
        os.environ["GCE_METADATA_HOST"] = os.environ["GCE_METADATA_IP"] = servers.google.metadata.authority
        os.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = servers.azure.imds.base
        if os.environ.get("KMS_OFFICIAL_SDKS"):
            import official_sdks

            official_sdks.run(servers)
        path = servers.file("servers.json", json.dumps(servers.description(), indent=2))
        status = subprocess.run(sys.argv[1:], env={**os.environ, "KMS_SERVERS": path}).returncode
    finally:
        if servers:
            servers.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
