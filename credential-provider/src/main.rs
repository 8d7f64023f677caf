//! `berth-credential-provider`: a kubelet's credential provider for Berth.
//!
//! The kubelet starts it before a pull with a request on standard input, and takes the pull's
//! credentials from its answer on standard output. It hands on the pod's service-account token as the
//! password of the robot whose trust is for such tokens, and keeps and asks nothing.

mod request;

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use clap::Parser;
use request::{Refusal, Request};

/// The longest request that is read, in bytes: a token, and the annotations of an account.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024;

const HELP: &str = "\
The kubelet starts the program; nobody types it. Its CredentialProviderConfig names it, and the hosts again:

  providers:
    - name: berth-credential-provider
      apiVersion: credentialprovider.kubelet.k8s.io/v1
      matchImages: [\"reg.homelab.lan:5000\"]
      defaultCacheDuration: 0s
      args: [\"--host=reg.homelab.lan:5000\"]
      tokenAttributes:
        serviceAccountTokenAudience: reg.homelab.lan
        cacheType: Token
        requireServiceAccount: true
        requiredServiceAccountAnnotationKeys: [berth/trust]

The service account says whose trust its tokens are for (authctl trust add builder …):

  kubectl annotate serviceaccount builder berth/trust=builder

To try it, with the token of a pod:

  echo '{\"apiVersion\": \"credentialprovider.kubelet.k8s.io/v1\", \"kind\": \"CredentialProviderRequest\",
      \"image\": \"reg.homelab.lan:5000/team/app\", \"serviceAccountToken\": \"ey…\",
      \"serviceAccountAnnotations\": {\"berth/trust\": \"builder\"}}' |
      berth-credential-provider --host reg.homelab.lan:5000

It refuses with exit code 1 and a line that the kubelet's log shows.";

/// Answers a kubelet that asks for the credentials of an image in Berth with the pod's
/// service-account token.
#[derive(Debug, Parser)]
#[command(version, after_help = HELP)]
struct Arguments {
    /// A registry that is Berth's, as images name it, with its port. May be repeated. No other host
    /// gets a token.
    #[arg(long = "host", value_name = "HOST[:PORT]", required = true, value_parser = host)]
    hosts: Vec<String>,
    /// The annotation of a service account that names its trust.
    #[arg(long, value_name = "KEY", default_value = "berth/trust")]
    annotation: String,
    /// The trust of accounts that have no such annotation.
    #[arg(long, value_name = "NAME")]
    trust: Option<String>,
}

/// A host as an image names it.
fn host(text: &str) -> Result<String, String> {
    let is_one = !text.is_empty() && !text.contains(['/', '*', '@', ' ']);
    if is_one {
        Ok(text.to_owned())
    } else {
        Err("write a host and its port, as in reg.homelab.lan:5000".into())
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let answered = answer(&arguments, io::stdin().lock())
        .and_then(|text| writeln!(io::stdout(), "{text}").map_err(Refusal::Unwritten));
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("berth-credential-provider: {refusal}");
            ExitCode::FAILURE
        }
    }
}

fn answer(arguments: &Arguments, asked: impl Read) -> Result<String, Refusal> {
    let mut text = Vec::new();
    asked.take(REQUEST_BYTES_MAX + 1).read_to_end(&mut text).map_err(Refusal::Unread)?;
    if text.len() as u64 > REQUEST_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let request = Request::read(&text)?;
    let host = request.host(&arguments.hosts)?;
    let token = request.token()?;
    let trust = request.trust(&arguments.annotation, arguments.trust.as_deref())?;
    Ok(request::response(host, trust, token))
}
