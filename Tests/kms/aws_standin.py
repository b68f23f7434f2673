"""AWS: moto's KMS, STS and IAM, made as strict as the real ones, with the metadata services of EC2, ECS and EKS before them.

moto verifies SigV4 signatures and policies once it is told to. What it lets pass is refused here: requests signed at another time
or for another region, disabled keys, keys pending deletion, other keys than asked for, and web-identity tokens of anybody.
"""

import base64
import json
import logging
import os
import time
from datetime import datetime, timedelta, timezone

import boto3
from common import Refusal, Server
from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.exceptions import (
    AccessDeniedError,
    InvalidClientTokenIdError,
    JsonRESTError,
    ServiceException,
    SignatureDoesNotMatchError,
)
from moto.kms.responses import KmsResponse
from moto.server import ThreadedMotoServer
from moto.sts.models import sts_backends
from moto.sts.responses import TokenResponse

logging.getLogger("werkzeug").setLevel(logging.ERROR)

REGION = "us-east-1"
POD_TOKEN = "pod-identity-token"


class KMSError(JsonRESTError):
    code = 400


def use(key):
    """Refuses what KMS refuses of a key in this state."""
    if key.key_state == "PendingDeletion":
        raise KMSError("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    if not key.enabled:
        raise KMSError("DisabledException", f"{key.arn} is disabled.")


def check_request(response):
    """The parts of a signature that moto does not look at."""
    headers = response.headers
    date = datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    now = datetime.now(timezone.utc)
    if abs(now - date) > timedelta(minutes=5):
        expired = f"{date:%Y%m%dT%H%M%SZ} is now earlier than {now - timedelta(minutes=5):%Y%m%dT%H%M%SZ}"
        raise KMSError("InvalidSignatureException", f"Signature expired: {expired}")
    scope = headers["Authorization"].split("Credential=")[1].split(",")[0].split("/")
    if scope[2:4] != [REGION, "kms"]:
        raise KMSError("InvalidSignatureException", f"Credential should be scoped to a valid region: {scope[2:4]}")


def strict(name):
    original = getattr(KmsResponse, name)

    def wrapped(self):
        check_request(self)
        backend = self.kms_backend
        asked = self._get_param("KeyId")
        if name == "decrypt":
            blob = self._get_param("CiphertextBlob") or b""
            blob = blob if isinstance(blob, bytes) else base64.b64decode(blob)
            holder = backend.keys.get(blob[:36].decode("latin1"))
            if holder and asked and backend.keys.get(backend.get_key_id(asked)) is not holder:
                raise KMSError("IncorrectKeyException", "The key ID in the request does not identify a key that can perform this.")
            key = holder
        else:
            key = backend.keys.get(backend.get_key_id(asked))
        if key is not None and name != "describe_key":
            use(key)
        return original(self)

    setattr(KmsResponse, name, wrapped)


for _name in ("generate_data_key_without_plaintext", "decrypt", "encrypt", "describe_key", "list_key_rotations"):
    strict(_name)


class AWS:
    def __init__(self, cluster):
        self.cluster = cluster
        self.sessions = {}
        self.require_web_identity()
        self.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.moto.start()
        host, port = self.moto.get_host_and_port()
        self.base = f"http://{host}:{port}"
        self.set_up()
        # From here on every request must be signed by somebody who may.
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        self.metadata = Server(self.answer_metadata)

    def client(self, service, key="setup", secret="setup", token=None):
        return boto3.client(
            service, endpoint_url=self.base, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret,
            aws_session_token=token,
        )

    def set_up(self):
        self.arn = self.client("kms").create_key()["KeyMetadata"]["Arn"]
        iam = self.client("iam")
        allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]}
        trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
                                                        "Principal": {"Federated": "*"}}]}
        self.role = iam.create_role(RoleName="node", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        iam.put_role_policy(RoleName="node", PolicyName="kms", PolicyDocument=json.dumps(allow))
        self.other_role = iam.create_role(RoleName="other", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        iam.create_user(UserName="admin")
        iam.put_user_policy(UserName="admin", PolicyName="kms", PolicyDocument=json.dumps(allow))
        key = iam.create_access_key(UserName="admin")["AccessKey"]
        self.admin = (key["AccessKeyId"], key["SecretAccessKey"])

    def require_web_identity(self):
        """STS verifies the token; its call is the one that needs no signature."""
        cluster, original = self.cluster, TokenResponse.assume_role_with_web_identity
        authorize = TokenResponse._authenticate_and_authorize_normal_action

        def error(code, message):
            kind = type(code, (ServiceException,), {"code": code})
            return kind(message)

        def assume(response):
            try:
                cluster.verify(response._get_param("WebIdentityToken") or "", "sts.amazonaws.com")
            except ValueError as reason:
                code = "ExpiredTokenException" if "expired" in str(reason) else "InvalidIdentityToken"
                raise error(code, str(reason)) from None
            return original(response)

        def maybe_authorize(response, resource="*"):
            if response._get_action() != "AssumeRoleWithWebIdentity":
                authorize(response, resource)

        kms_authorize = KmsResponse._authenticate_and_authorize_normal_action

        def as_kms_says(response, resource="*"):
            """moto refuses in XML with status 403; KMS does it in JSON with 400, and with names of its own."""
            try:
                kms_authorize(response, resource)
            except InvalidClientTokenIdError:
                message = "The security token included in the request is invalid."
                raise KMSError("UnrecognizedClientException", message) from None
            except SignatureDoesNotMatchError:
                message = "The request signature we calculated does not match the signature you provided."
                raise KMSError("InvalidSignatureException", message) from None
            except AccessDeniedError:
                message = f"User is not authorized to perform: kms:{response._get_action()}"
                raise KMSError("AccessDeniedException", message) from None

        KmsResponse._authenticate_and_authorize_normal_action = as_kms_says
        TokenResponse.assume_role_with_web_identity = assume
        TokenResponse._authenticate_and_authorize_normal_action = maybe_authorize

    # What a test does to the key.

    @property
    def key_id(self):
        """moto's own administration does not take ARNs everywhere."""
        return self.arn.split("/")[-1]

    def kms(self):
        return self.client("kms", *self.admin)

    def rotate(self):
        self.kms().rotate_key_on_demand(KeyId=self.key_id)

    def set_enabled(self, enabled):
        (self.kms().enable_key if enabled else self.kms().disable_key)(KeyId=self.key_id)

    def schedule_deletion(self):
        self.kms().schedule_key_deletion(KeyId=self.key_id, PendingWindowInDays=7)

    def cancel_deletion(self):
        self.kms().cancel_key_deletion(KeyId=self.key_id)
        self.set_enabled(True)

    def revoke_tokens(self):
        sts_backends[DEFAULT_ACCOUNT_ID]["aws"].assumed_roles.clear()

    # EC2's IMDSv2 and the agents of ECS and EKS

    def role_credentials(self):
        backend = sts_backends[DEFAULT_ACCOUNT_ID]["aws"]
        role = backend.assume_role_with_web_identity(
            region_name=REGION, role_session_name="i-1", role_arn=self.role, policy=None, duration=3600, external_id=None
        )
        end = datetime.now(timezone.utc) + timedelta(hours=6)
        return {
            "AccessKeyId": role.access_key_id, "SecretAccessKey": role.secret_access_key, "Token": role.session_token,
            "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def answer_metadata(self, request):
        if request.path == "/latest/api/token":
            if request.method != "PUT" or request.headers.get("X-Forwarded-For"):
                raise Refusal(405, "")
            ttl = request.headers.get("X-aws-ec2-metadata-token-ttl-seconds") or ""
            if not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
                raise Refusal(400, "")
            token = os.urandom(20).hex()
            self.sessions[token] = time.time() + int(ttl)
            return token
        if request.path.startswith("/latest/"):
            if self.sessions.get(request.headers.get("X-aws-ec2-metadata-token"), 0) < time.time():
                raise Refusal(401, "")
            folder = "/latest/meta-data/iam/security-credentials/"
            if request.path == folder:
                return "node"
            if request.path == folder + "node":
                return {"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", **self.role_credentials()}
        if request.path in ("/v1/credentials", "/v2/credentials/task"):
            # EKS asks for the pod's token; ECS does not.
            if request.path == "/v1/credentials" and request.headers.get("Authorization") != POD_TOKEN:
                raise Refusal(401, {"code": "AccessDenied", "message": "bad token"})
            return self.role_credentials()
        raise Refusal(404, "")
