//! TLS of checks: whom they trust, read once in a while.

use std::{
    collections::HashMap,
    fmt::Display,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use control::health::Tls;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    },
};

use super::tcp;

/// How long certificates that were read are used: files change.
const FRESH: Duration = Duration::from_secs(60);
/// Readings that are kept, and files of certificates with them.
const KEPT: usize = 256;
/// Longest file of certificates.
const LARGEST: u64 = 4 << 20;

type Read = Result<Arc<ClientConfig>, String>;

/// Configurations by what they trust.
#[derive(Debug, Default)]
pub(super) struct Trust {
    read: Mutex<HashMap<Tls, (Instant, Read)>>,
}

impl Trust {
    /// Begins TLS with a target whose certificate is for a name.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        tls: &Tls,
        name: String,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(name).map_err(|error| format!("tls: {error}"))?;
        let config = self.config(tls).await?;
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
            let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            refused.map_or_else(|| tcp::why(&error), |refused| format!("tls: {refused}"))
        })
    }

    async fn config(&self, tls: &Tls) -> Read {
        if let Some((time, read)) = self.lock().get(tls)
            && time.elapsed() < FRESH
        {
            return read.clone();
        }
        let sought = tls.clone();
        // The system's certificates are hundreds of files.
        let read = tokio::task::spawn_blocking(move || read(&sought)).await;
        let read = read.unwrap_or_else(|error| Err(error.to_string()));
        let mut kept = self.lock();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(tls.clone(), (Instant::now(), read.clone()));
        read
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Tls, (Instant, Read)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(tls: &Tls) -> Read {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| format!("tls: {error}"))?;
    let config = if tls.insecure {
        let anybody = Arc::new(Anybody(provider));
        builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
    } else {
        let roots = match &tls.ca {
            Some(file) => roots_of(Path::new(file))?,
            None => roots_of_system()?,
        };
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    Ok(Arc::new(config))
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let failed = |error: &dyn Display| format!("ca {}: {error}", file.display());
    let length = std::fs::metadata(file).map_err(|error| failed(&error))?.len();
    if length > LARGEST {
        return Err(failed(&"longer than 4 MiB"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))? {
        roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
    }
    if roots.is_empty() { Err(failed(&"no certificates in PEM")) } else { Ok(roots) }
}

fn roots_of_system() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match (roots.is_empty(), found.errors.first()) {
        (false, _) => Ok(roots),
        (true, Some(error)) => Err(format!("the system's certificates: {error}")),
        (true, None) => Err("the system has no certificates; install them, or name a file by ca".to_owned()),
    }
}

/// Takes any certificate, of whoever has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
