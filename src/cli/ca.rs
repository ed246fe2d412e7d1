//! `ft ca`: the cluster's certificate authority.

use super::CliResult;
use ft::net::identity::{
    CA_CERTIFICATE, CA_KEY, CertificateSummary, ClusterCa, DAY, HOST_CERTIFICATE, HOST_KEY, HostName,
    ValidityAt,
};
use serde::Serialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

/// `show` warns when a certificate ends sooner than this.
const WARN_DAYS: u64 = 30;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make the cluster's certificate authority, once, in a new directory
    Init(Init),
    /// Issue the certificate and private key of one host, in a new directory
    Issue(Issue),
    /// Say what certificates are for, who issued them and when they end
    Show(Show),
}

#[derive(clap::Args)]
struct Init {
    /// Directory to make
    #[arg(long, default_value = "./ft-ca")]
    dir: PathBuf,
    /// Name of the cluster
    #[arg(long, value_name = "CLUSTER", default_value = "ft")]
    name: String,
    /// Days until the authority, and every certificate it issued, ends
    #[arg(long, default_value_t = 3650)]
    days: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Issue {
    /// Name of the host: lowercase letters, digits, hyphens and dots
    host: String,
    /// Directory of the authority
    #[arg(long, value_name = "DIR", default_value = "./ft-ca")]
    ca: PathBuf,
    /// Directory to make [default: ./HOST]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Days until the certificate ends
    #[arg(long, default_value_t = 365)]
    days: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Show {
    /// A certificate file, or a directory made by `ft ca`
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> CliResult {
    match args.command {
        Command::Init(args) => init(args)?,
        Command::Issue(args) => issue(args)?,
        Command::Show(args) => show(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

type Done = Result<(), Box<dyn std::error::Error>>;

/// What `init` and `issue` made.
#[derive(Serialize)]
struct Made {
    /// The cluster or the host.
    name: String,
    dir: PathBuf,
    files: Vec<PathBuf>,
    not_after: String,
}

impl Made {
    fn new(name: impl ToString, dir: PathBuf, files: &[&str], not_after: impl ToString) -> Self {
        let files = files.iter().map(|file| dir.join(file)).collect();
        Self { name: name.to_string(), dir, files, not_after: not_after.to_string() }
    }
}

fn init(args: Init) -> Done {
    let ca = ClusterCa::init(&args.dir, &args.name, args.days * DAY)?;
    let made = Made::new(&ca.summary().subject, args.dir, &[CA_CERTIFICATE, CA_KEY], ca.summary().not_after);
    if args.json {
        return print_json(&made);
    }
    let dir = made.dir.display();
    print(&format!(
        "made the CA `{}`, valid until {}\n  \
           {dir}/{CA_CERTIFICATE}  its certificate, public\n  \
           {dir}/{CA_KEY}  its private key: keep a copy in a safe place, and none on the hosts\n\
         next, once for each host: ft ca issue HOST --ca {dir}\n",
        made.name, made.not_after,
    ))
}

fn issue(args: Issue) -> Done {
    let host: HostName = args.host.parse()?;
    let credentials = ClusterCa::open(&args.ca)?.issue(&host, args.days * DAY)?;
    let dir = args.out.unwrap_or_else(|| Path::new(".").join(host.as_str()));
    credentials.write(&dir)?;
    let made = Made::new(&host, dir, &[CA_CERTIFICATE, HOST_CERTIFICATE, HOST_KEY], credentials.not_after());
    if args.json {
        return print_json(&made);
    }
    let dir = made.dir.display();
    print(&format!(
        "issued a certificate for {host}, valid until {}\n  \
           {dir}/{CA_CERTIFICATE}    the CA's certificate\n  \
           {dir}/{HOST_CERTIFICATE}  the host's certificate\n  \
           {dir}/{HOST_KEY}  the host's private key\n\
         next: copy the directory {dir} to {host} (scp -rp keeps the key private), then delete it here\n",
        made.not_after,
    ))
}

/// One certificate, as `show` prints it.
#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    subject: String,
    issuer: String,
    hosts: Vec<String>,
    is_ca: bool,
    serial: String,
    key_id: Option<String>,
    issuer_key_id: Option<String>,
    not_before: String,
    not_after: String,
    /// Whole days until it ends; 0 when it has ended.
    days_left: u64,
    status: Status,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    Valid,
    ExpiresSoon,
    Expired,
    NotYetValid,
}

fn show(args: Show) -> Done {
    let now = SystemTime::now();
    let mut shown = Vec::new();
    for file in certificate_files(&args.path)? {
        let all = CertificateSummary::read(&file)?;
        shown.extend(all.into_iter().map(|summary| Shown::new(&file, summary, now)));
    }
    if args.json {
        return print_json(&shown);
    }
    for certificate in &shown {
        print(&certificate.text())?;
        if let Some(warning) = certificate.warning() {
            eprintln!("ft: warning: {warning}");
        }
    }
    Ok(())
}

/// The file itself, or the certificates in a directory that `ft ca` made.
fn certificate_files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = vec![path.join(CA_CERTIFICATE), path.join(HOST_CERTIFICATE)];
    files.retain(|file| file.exists());
    match files.is_empty() {
        true => Err(format!(
            "{} holds neither {CA_CERTIFICATE} nor {HOST_CERTIFICATE}; \
             name a directory made by `ft ca`, or a file",
            path.display()
        )),
        false => Ok(files),
    }
}

impl Shown {
    fn new(file: &Path, summary: CertificateSummary, now: SystemTime) -> Self {
        let days_left = summary.not_after.since(now.into()).as_secs() / DAY.as_secs();
        let status = match summary.validity_at(now) {
            ValidityAt::NotYet => Status::NotYetValid,
            ValidityAt::Expired => Status::Expired,
            ValidityAt::Valid if days_left < WARN_DAYS => Status::ExpiresSoon,
            ValidityAt::Valid => Status::Valid,
        };
        Self {
            file: file.to_owned(),
            subject: summary.subject,
            issuer: summary.issuer,
            hosts: summary.hosts,
            is_ca: summary.is_ca,
            serial: summary.serial,
            key_id: summary.key_id,
            issuer_key_id: summary.issuer_key_id,
            not_before: summary.not_before.to_string(),
            not_after: summary.not_after.to_string(),
            days_left,
            status,
        }
    }

    fn text(&self) -> String {
        let kind = if self.is_ca { " (a CA)" } else { "" };
        let hosts = if self.hosts.is_empty() { "none".to_owned() } else { self.hosts.join(", ") };
        let with_key = |id: &Option<String>| id.as_ref().map(|id| format!(", key {id}")).unwrap_or_default();
        format!(
            "{}\n  subject  {}{kind}{}\n  issuer   {}{}\n  hosts    {hosts}\n  \
             valid    {} to {}\n  serial   {}\n",
            self.file.display(),
            self.subject,
            with_key(&self.key_id),
            self.issuer,
            with_key(&self.issuer_key_id),
            self.not_before,
            self.not_after,
            self.serial,
        )
    }

    fn warning(&self) -> Option<String> {
        let (file, days) = (self.file.display(), self.days_left);
        let when = match self.status {
            Status::Valid => return None,
            Status::ExpiresSoon => format!("expires in {days} days ({})", self.not_after),
            Status::Expired => format!("expired {}", self.not_after),
            Status::NotYetValid => return Some(format!("{file} is not valid before {}", self.not_before)),
        };
        let todo = match (self.is_ca, self.hosts.as_slice()) {
            (true, _) => "make a new CA with `ft ca init` and new certificates for all hosts".to_owned(),
            (false, [host]) => format!("issue a new one with `ft ca issue {host}`"),
            (false, _) => "issue a new one with `ft ca issue HOST`".to_owned(),
        };
        Some(format!("{file} {when}; {todo}"))
    }
}

fn print_json(value: &impl Serialize) -> Done {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Unlike `print!`, does not panic when nobody reads.
fn print(text: &str) -> Done {
    Ok(io::stdout().write_all(text.as_bytes())?)
}
