"""Drives the stand-ins with the official SDKs: what they accept and what they make of refusals is what our client is held to."""

import os
import tempfile

import boto3
import botocore.exceptions
import google_crc32c
from azure.core.exceptions import HttpResponseError
from azure.identity import ManagedIdentityCredential, WorkloadIdentityCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm
from azure_standin import CLIENT, TENANT
from google.api_core import exceptions as google_errors
from google.api_core.client_options import ClientOptions
from google.auth import compute_engine, identity_pool
from google.cloud import kms_v1
from google_standin import ACCOUNT, AUDIENCE, KEY

CONTEXT = {"cluster": "c", "epoch": "1"}
checks = 0


def check(what, condition):
    global checks
    if not condition:
        raise AssertionError(f"official SDK: {what}")
    checks += 1


def refused(what, kind, code, call):
    """The call fails with an exception of the kind whose text has the code."""
    try:
        call()
    except kind as error:
        check(f"{what}: {error}", code in str(error))
        return
    raise AssertionError(f"official SDK: {what} was not refused")


def token_file(token):
    file = tempfile.NamedTemporaryFile("w", delete=False)
    file.write(token)
    file.close()
    return file.name


def aws(stand_in, cluster):
    error = botocore.exceptions.ClientError
    sts = boto3.client("sts", endpoint_url=stand_in.base, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    assume = lambda token: sts.assume_role_with_web_identity(RoleArn=stand_in.role, RoleSessionName="node", WebIdentityToken=token)
    refused("expired web identity", error, "ExpiredTokenException", lambda: assume(cluster.token("sts.amazonaws.com", -5)))
    refused("wrong audience", error, "InvalidIdentityToken", lambda: assume(cluster.token("other")))
    credentials = assume(cluster.token("sts.amazonaws.com"))["Credentials"]
    kms = stand_in.client("kms", credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])
    blob = kms.generate_data_key_without_plaintext(KeyId=stand_in.arn, KeySpec="AES_256", EncryptionContext=CONTEXT)
    decrypt = lambda context, blob=blob["CiphertextBlob"]: kms.decrypt(
        CiphertextBlob=blob, EncryptionContext=context, KeyId=stand_in.arn
    )
    check("decrypt", len(decrypt(CONTEXT)["Plaintext"]) == 32)
    refused("wrong context", error, "InvalidCiphertextException", lambda: decrypt({"cluster": "d"}))
    wrong = stand_in.client("kms", credentials["AccessKeyId"], "wrong", credentials["SessionToken"])
    refused("wrong signature", error, "InvalidSignatureException", lambda: wrong.describe_key(KeyId=stand_in.arn))
    refused("other region", error, "Signature", lambda: boto3.client(
        "kms", endpoint_url=stand_in.base, region_name="eu-west-1", aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"], aws_session_token=credentials["SessionToken"],
    ).decrypt(CiphertextBlob=blob["CiphertextBlob"], EncryptionContext=CONTEXT))
    stand_in.set_enabled(False)
    refused("disabled", error, "DisabledException", lambda: decrypt(CONTEXT))
    stand_in.set_enabled(True)
    stand_in.schedule_deletion()
    refused("pending deletion", error, "KMSInvalidStateException", lambda: decrypt(CONTEXT))
    stand_in.cancel_deletion()
    before = len(kms.list_key_rotations(KeyId=stand_in.arn)["Rotations"])
    stand_in.rotate()
    check("rotation is listed", len(kms.list_key_rotations(KeyId=stand_in.arn)["Rotations"]) == before + 1)
    check("old blob after rotation", len(decrypt(CONTEXT)["Plaintext"]) == 32)


def google(stand_in, cluster):
    info = {
        "type": "external_account", "audience": AUDIENCE, "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": stand_in.sts.base + "/v1/token",
        "credential_source": {"file": token_file(cluster.token("https:" + AUDIENCE)), "format": {"type": "text"}},
    }
    impersonation = f"{stand_in.sts.base}/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
    wide, narrow = "https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/cloudkms"
    for name, credentials in (
        ("metadata", compute_engine.Credentials()),
        ("federation", identity_pool.Credentials.from_info(info, scopes=[narrow])),
        ("impersonation", identity_pool.Credentials.from_info(
            {**info, "service_account_impersonation_url": impersonation}, scopes=[wide])),
    ):
        options = ClientOptions(api_endpoint=stand_in.kms.base)
        client = kms_v1.KeyManagementServiceClient(transport="rest", credentials=credentials, client_options=options)
        crc, dek, aad = google_crc32c.value, os.urandom(32), b"cluster=c;epoch=1"
        check(f"{name}: get", client.get_crypto_key(name=KEY).primary.state.name == "ENABLED")
        sealed = client.encrypt(request={
            "name": KEY, "plaintext": dek, "additional_authenticated_data": aad, "plaintext_crc32c": crc(dek),
            "additional_authenticated_data_crc32c": crc(aad),
        })
        check(f"{name}: checksums", sealed.verified_plaintext_crc32c and sealed.verified_additional_authenticated_data_crc32c
              and sealed.ciphertext_crc32c == crc(sealed.ciphertext))
        opened = client.decrypt(request={"name": KEY, "ciphertext": sealed.ciphertext, "additional_authenticated_data": aad})
        check(f"{name}: decrypt", opened.plaintext == dek and opened.plaintext_crc32c == crc(dek))
        refused(f"{name}: wrong AAD", google_errors.BadRequest, "Decryption failed", lambda: client.decrypt(
            request={"name": KEY, "ciphertext": sealed.ciphertext, "additional_authenticated_data": b"x"}))
        refused(f"{name}: wrong checksum", google_errors.BadRequest, "checksum", lambda: client.encrypt(
            request={"name": KEY, "plaintext": dek, "plaintext_crc32c": 1}))
        stand_in.set_state("DISABLED")
        refused(f"{name}: disabled", google_errors.BadRequest, "DISABLED", lambda: client.decrypt(
            request={"name": KEY, "ciphertext": sealed.ciphertext, "additional_authenticated_data": aad}))
        stand_in.set_state("ENABLED")
        before = client.get_crypto_key(name=KEY).primary.name
        stand_in.rotate()
        check(f"{name}: rotation", client.get_crypto_key(name=KEY).primary.name != before)


def azure(stand_in, cluster, ca):
    file = token_file(cluster.token("api://AzureADTokenExchange"))
    workload = WorkloadIdentityCredential(
        tenant_id=TENANT, client_id=CLIENT, token_file_path=file, authority=stand_in.entra.base, disable_instance_discovery=True,
        connection_verify=ca,
    )
    for name, credential in (("managed identity", ManagedIdentityCredential()), ("workload identity", workload)):
        options = {"connection_verify": ca}
        # By default the SDK refuses a challenge whose resource is not the vault's own domain, as our client does.
        refused(f"{name}: foreign resource", ValueError, "does not match", lambda: KeyClient(
            stand_in.vault.base, credential, **options).get_key("kek"))
        options["verify_challenge_resource"] = False
        client = KeyClient(stand_in.vault.base, credential, **options)
        for key_name, algorithm in (("kek", KeyWrapAlgorithm.rsa_oaep_256), ("aeskek", KeyWrapAlgorithm.aes_256)):
            key = client.get_key(key_name)
            crypto, dek = CryptographyClient(key, credential, **options), os.urandom(32)
            wrapped = crypto.wrap_key(algorithm, dek)
            check(f"{name}: {key_name}", crypto.unwrap_key(algorithm, wrapped.encrypted_key).key == dek)
            changed = bytes([wrapped.encrypted_key[0] ^ 1]) + wrapped.encrypted_key[1:]
            refused(f"{name}: tampered", HttpResponseError, "BadParameter", lambda: crypto.unwrap_key(algorithm, changed))
            rotated = client.rotate_key(key_name).properties.version
            check(f"{name}: rotation", client.get_key(key_name).properties.version == rotated != key.properties.version)
            check(f"{name}: old version", crypto.unwrap_key(algorithm, wrapped.encrypted_key).key == dek)
        stand_in.set_enabled(False)
        refused(f"{name}: disabled", HttpResponseError, "disabled", lambda: client.get_key("kek"))
        stand_in.set_enabled(True)


def run(servers):
    google(servers.google, servers.cluster)
    azure(servers.azure, servers.cluster, servers.ca)
    aws(servers.aws, servers.cluster)
    print(f"OFFICIAL SDKS {checks} checks of the stand-ins passed (boto3, google-cloud-kms, azure-keyvault-keys)")
