"""Unwraps DEKs with the official SDKs, from what docs/kms.md says alone: what the product made must open without it."""

import base64
import hashlib
import hmac
import struct

import google_crc32c
from azure.identity import ManagedIdentityCredential
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm
from google.api_core.client_options import ClientOptions
from google.auth import compute_engine
from google.cloud import kms_v1

PROVIDERS = {2: "aws", 3: "gcp", 4: "azure", 5: "openbao"}


def parts(blob):
    """(provider, KEK id, KEK version, wrapped bytes)"""
    if blob[0] != 1:
        raise ValueError(f"format version {blob[0]}")
    fields, rest = [], blob[2:]
    for _ in range(3):
        length, = struct.unpack_from(">H", rest)
        fields.append(rest[2:2 + length])
        rest = rest[2 + length:]
    if rest:
        raise ValueError("something follows the blob")
    return PROVIDERS[blob[1]], fields[0].decode(), fields[1].decode(), fields[2]


def canonical(cluster, epoch, purpose=b"traffic"):
    return b"xdp-encryptor/1 dek" + cluster + struct.pack(">IB", epoch, len(purpose)) + purpose


def hkdf(secret, info, length):
    key, out, block = hmac.digest(bytes(32), secret, hashlib.sha256), b"", b""
    for index in range(1, (length + 31) // 32 + 1):
        block = hmac.digest(key, block + info + bytes([index]), hashlib.sha256)
        out += block
    return out[:length]


def aws(servers, kek, version, wrapped, cluster, epoch):
    context = {
        "xdp-encryptor/cluster": cluster.hex(), "xdp-encryptor/epoch": str(epoch), "xdp-encryptor/purpose": "traffic",
    }
    return servers.aws.kms().decrypt(CiphertextBlob=wrapped, EncryptionContext=context, KeyId=kek)["Plaintext"]


def gcp(servers, kek, version, wrapped, cluster, epoch):
    client = kms_v1.KeyManagementServiceClient(
        transport="rest", credentials=compute_engine.Credentials(),
        client_options=ClientOptions(api_endpoint=servers.google.kms.base),
    )
    answer = client.decrypt(request={
        "name": kek, "ciphertext": wrapped, "additional_authenticated_data": canonical(cluster, epoch),
        "ciphertext_crc32c": google_crc32c.value(wrapped),
    })
    return answer.plaintext


def azure(servers, kek, version, wrapped, cluster, epoch):
    client = CryptographyClient(
        f"{kek}/{version}", ManagedIdentityCredential(), verify_challenge_resource=False, connection_verify=servers.ca
    )
    seed = client.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, wrapped[32:]).key
    derived = hkdf(seed, canonical(cluster, epoch), 64)
    if derived[32:] != wrapped[:32]:
        raise ValueError("the commitment does not fit")
    return derived[:32]


def openbao(servers, kek, version, wrapped, cluster, epoch):
    mount, key = kek.split("/")
    answer = servers.openbao.call("POST", f"{mount}/decrypt/{key}", {
        "ciphertext": wrapped.decode(), "associated_data": base64.b64encode(canonical(cluster, epoch)).decode(),
    })
    return base64.b64decode(answer["data"]["plaintext"])


def unwrap(servers, blob, cluster, epoch):
    provider, kek, version, wrapped = parts(blob)
    return {"aws": aws, "gcp": gcp, "azure": azure, "openbao": openbao}[provider](servers, kek, version, wrapped, cluster, epoch)
