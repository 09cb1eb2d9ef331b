# Pulp container: lines for /etc/pulp/settings.py. In authserver.yaml: a service with verifier: pinned, whose name is the host that
# clients use, and whose issuer is TOKEN_SERVER.
TOKEN_AUTH_DISABLED = False
TOKEN_SERVER = "https://auth.example.com/token"
TOKEN_SIGNATURE_ALGORITHM = "ES256"
PUBLIC_KEY_PATH = "/etc/pulp/certs/token_public_key.pem"
PRIVATE_KEY_PATH = "/etc/pulp/certs/token_private_key.pem"
