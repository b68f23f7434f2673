import Lab

/// A certificate authority for one run, and a certificate for each sidecar. Keys stay in the lab's directory, which only root can
/// read and which goes with the lab.
enum Credentials {
    /// Makes ca.crt, and for `client` and `server` NAME.crt, NAME.key and NAME.pem (both in one), on P-256.
    static func make(in lab: Lab) throws {
        let script = """
            cd "$1"
            key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
            key ca
            openssl req -x509 -new -key ca.key -out ca.crt -days 2 -subj "/CN=Benchmark CA"
            for name in client server; do
                key $name
                openssl req -new -key $name.key -out $name.csr -subj "/CN=$name.bench"
                printf 'subjectAltName=DNS:%s.bench\\nextendedKeyUsage=serverAuth,clientAuth\\n' $name > $name.ext
                openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.crt
                cat $name.crt $name.key > $name.pem
            done
            """
        try lab.require(["sh", "-euc", script, "sh", lab.directory])
    }
}
