//! The cluster's certificate authority: a key that signs the certificates of hosts, and nothing else.
//!
//! The CA is needed to issue, never to run: hosts hold its certificate, not its key.

use super::certificate::CertificateSummary;
use super::files::{self, NewFile};
use super::{CA_CERTIFICATE, CA_KEY, HostCredentials, HostName, IdentityError, UtcTime};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

/// One day, the unit of validities.
pub const DAY: Duration = Duration::from_secs(86_400);

/// Certificates start this long before they are made, for hosts whose clocks are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The longest validity, in days. Nobody plans further, and a year has to fit into four digits.
const VALIDITY_DAYS_MAX: u64 = 36_500;

/// The cluster's certificate authority: its certificate and its private key.
pub struct ClusterCa {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    summary: CertificateSummary,
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCa").field("summary", &self.summary).finish_non_exhaustive()
    }
}

impl ClusterCa {
    /// Makes a CA in memory, valid from (a little before) `now` for `validity`. Two CAs of one name are two
    /// CAs: hosts go by the key.
    ///
    /// # Errors
    /// If the name is not 1 to 64 letters, digits, spaces, dots, hyphens and underscores, or the validity is
    /// not from 1 to 36500 days.
    pub fn generate(cluster_name: &str, validity: Duration, now: SystemTime) -> Result<Self, IdentityError> {
        check_cluster_name(cluster_name)?;
        let mut params = params(cluster_name, period(validity, now)?)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = new_key()?;
        let certificate = params.self_signed(&key).map_err(crypto("sign the CA's certificate"))?;
        Self::from_parts(certificate.der(), certificate.pem(), key, Path::new(CA_CERTIFICATE))
    }

    /// Makes a CA and stores it in a new directory.
    ///
    /// # Errors
    /// Those of [`generate`](Self::generate) and of [`write`](Self::write).
    pub fn init(dir: &Path, cluster_name: &str, validity: Duration) -> Result<Self, IdentityError> {
        let ca = Self::generate(cluster_name, validity, SystemTime::now())?;
        ca.write(dir)?;
        Ok(ca)
    }

    /// Stores the CA in a new directory (mode 0700): `ca.crt`, and `ca.key` with mode 0600.
    ///
    /// The directory appears with both files in it or not at all.
    ///
    /// # Errors
    /// If there is something in the directory already; it is left as it is.
    pub fn write(&self, dir: &Path) -> Result<(), IdentityError> {
        let key_pem = self.issuer.key().serialize_pem();
        let files =
            [NewFile::public(CA_CERTIFICATE, &self.certificate_pem), NewFile::private(CA_KEY, &key_pem)];
        files::create_dir(dir, &files, || occupied(dir))
    }

    /// Opens a CA that [`init`](Self::init) made.
    ///
    /// # Errors
    /// If a file is missing or damaged, the key does not belong to the certificate, or others than the key
    /// file's owner can get at it.
    pub fn open(dir: &Path) -> Result<Self, IdentityError> {
        let todo =
            format!("put back a copy of it, or make a new CA with `ft ca init --dir {}`", dir.display());
        let (certificate_path, key_path) = (dir.join(CA_CERTIFICATE), dir.join(CA_KEY));
        let pem = files::read_public(&certificate_path, &todo)?;
        let der = files::certificate(&certificate_path, &pem, &todo)?;
        let key_pem = files::read_private(&key_path, &todo)?;
        let key_der = files::private_key(&key_path, &key_pem, &todo)?;
        let key = KeyPair::try_from(&key_der)
            .map_err(|error| files::damaged(&key_path, format!("not a usable key: {error}"), &todo))?;
        check_pair(&der, &certificate_path, &key, &key_path)?;
        let pem = String::from_utf8_lossy(&pem).into_owned();
        Self::from_parts(&der, pem, key, &certificate_path)
    }

    fn from_parts(
        der: &CertificateDer<'_>,
        certificate_pem: String,
        key: KeyPair,
        path: &Path,
    ) -> Result<Self, IdentityError> {
        let summary = CertificateSummary::of_file(path, der, "put back a copy of it")?;
        if !summary.is_ca {
            return Err(IdentityError::NotCa { path: path.to_owned(), subject: summary.bearer() });
        }
        let issuer = Issuer::from_ca_cert_der(der, key).map_err(crypto("read the CA's certificate"))?;
        Ok(Self { issuer, certificate_pem, summary })
    }

    /// What the CA's certificate says; its subject is the cluster's name.
    pub fn summary(&self) -> &CertificateSummary {
        &self.summary
    }

    /// The CA's certificate, as PEM text.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues the certificate of a host, with a new key, valid from now on.
    ///
    /// # Errors
    /// Those of [`issue_at`](Self::issue_at).
    pub fn issue(&self, host: &HostName, validity: Duration) -> Result<HostCredentials, IdentityError> {
        self.issue_at(host, validity, SystemTime::now())
    }

    /// Issues the certificate of a host, with a new key, valid from (a little before) `now` for `validity`.
    ///
    /// # Errors
    /// If the validity is not from 1 to 36500 days, or would outlive the CA.
    pub fn issue_at(
        &self,
        host: &HostName,
        validity: Duration,
        now: SystemTime,
    ) -> Result<HostCredentials, IdentityError> {
        let period = period(validity, now)?;
        self.check_within_ca(host, UtcTime::from_unix_secs(period.1.unix_timestamp()), now)?;
        let key = new_key()?;
        let certificate = self.sign_host(host, period, &key)?;
        Ok(HostCredentials {
            host: host.clone(),
            not_after: UtcTime::from_unix_secs(period.1.unix_timestamp()),
            ca_pem: self.certificate_pem.clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// A host both calls and is called, hence both uses.
    fn sign_host(
        &self,
        host: &HostName,
        period: Period,
        key: &KeyPair,
    ) -> Result<Certificate, IdentityError> {
        let mut params = params(host.as_str(), period)?;
        let name = host.as_str().try_into().map_err(crypto("name the host"))?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.signed_by(key, &self.issuer).map_err(crypto("sign the host's certificate"))
    }

    fn check_within_ca(&self, host: &HostName, until: UtcTime, now: SystemTime) -> Result<(), IdentityError> {
        let ca_until = self.summary.not_after;
        if until <= ca_until {
            return Ok(());
        }
        let todo = match ca_until.since(now.into()).as_secs() / DAY.as_secs() {
            0 => "make a new CA with `ft ca init` and new certificates for all hosts".to_owned(),
            days => format!("ask for at most {days} days, or make a new CA with `ft ca init`"),
        };
        let ca = self.summary.subject.clone();
        Err(IdentityError::OutlivesCa { host: host.clone(), until, ca, ca_until, todo })
    }
}

fn occupied(dir: &Path) -> IdentityError {
    let (holds, todo) = match CertificateSummary::read(&dir.join(CA_CERTIFICATE)).as_deref() {
        Ok([there, ..]) => (format!("the CA `{}`", there.subject), "use that CA, or name another directory"),
        _ => ("something else".to_owned(), "name another directory"),
    };
    IdentityError::Occupied { dir: dir.to_owned(), holds, todo }
}

/// Start and end of a validity.
type Period = (OffsetDateTime, OffsetDateTime);

fn period(validity: Duration, now: SystemTime) -> Result<Period, IdentityError> {
    let days = validity.as_secs() / DAY.as_secs();
    let refused = IdentityError::Validity { days };
    if !(1..=VALIDITY_DAYS_MAX).contains(&days) {
        return Err(refused);
    }
    let now = UtcTime::from(now).unix_secs();
    let at = |secs: i64| OffsetDateTime::from_unix_timestamp(secs).ok();
    let start = at(now.saturating_sub_unsigned(CLOCK_SKEW.as_secs()));
    let end = at(now.saturating_add_unsigned(validity.as_secs()));
    start.zip(end).ok_or(refused)
}

fn params(name: &str, (not_before, not_after): Period) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(serial()?);
    (params.not_before, params.not_after) = (not_before, not_after);
    Ok(params)
}

/// 127 random bits: RFC 5280 section 4.1.2.2 asks for positive numbers.
fn serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = files::random::<16>()?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate().map_err(crypto("make a private key"))
}

fn check_cluster_name(name: &str) -> Result<(), IdentityError> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let fits = name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || " .-_".contains(c));
    match starts_well && fits {
        true => Ok(()),
        false => Err(IdentityError::ClusterName { given: name.chars().take(80).collect() }),
    }
}

fn check_pair(
    der: &CertificateDer<'_>,
    certificate: &Path,
    key: &KeyPair,
    key_path: &Path,
) -> Result<(), IdentityError> {
    let (_, x509) = x509_parser::parse_x509_certificate(der)
        .map_err(|error| files::damaged(certificate, error.to_string(), "put back a copy of it"))?;
    if x509.public_key().subject_public_key.data == key.public_key_raw() {
        return Ok(());
    }
    Err(IdentityError::KeyMismatch {
        key: key_path.to_owned(),
        certificate: certificate.to_owned(),
        todo: "make a new CA with `ft ca init`".to_owned(),
    })
}

fn crypto<E: fmt::Display>(doing: &'static str) -> impl Fn(E) -> IdentityError {
    move |error| IdentityError::Crypto { doing, why: error.to_string() }
}
