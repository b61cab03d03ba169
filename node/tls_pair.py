"""Keys for one loan: made for it, told to the other side through the mesh, and forgotten with it."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shoal")])

FOR_EVER = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
"""Clocks of other machines are never trusted, so no date may matter: a loan ends when its call ends."""

LONG_AGO = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)


def make_pair() -> tuple[str, str]:
    """A certificate that nobody else vouches for, and its key; both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(LONG_AGO)
        .not_valid_after(FOR_EVER)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem).decode(), secret.decode()
