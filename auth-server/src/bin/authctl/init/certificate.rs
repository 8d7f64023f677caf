//! The certificate of an installation, and the hosts it is for.

use std::collections::BTreeSet;

use auth_server::{certs::Found, host::Host};
use berth_shared::clock::Clock;

use super::{Arguments, Steps, layout::Layout, urls::hosts_in};
use crate::report::Failure;

/// What certificate there is, and which hosts are wanted.
pub(super) struct Plan {
    found: Found,
    /// The hosts that were named in this run.
    pub(super) asked: Option<Vec<Host>>,
    /// The hosts for a first run.
    pub(super) wanted: Vec<Host>,
}

impl Plan {
    pub(super) fn new(
        arguments: &Arguments,
        layout: &Layout,
        clock: &Clock,
    ) -> Result<Self, Failure> {
        let found = layout.certificates.find(clock)?;
        let asked = arguments.host.as_ref().filter(|hosts| !hosts.is_empty());
        let asked = asked.map(|hosts| hosts.to_vec());
        // An owner's certificate says by which names the registry is reached.
        let mut wanted = asked.clone().unwrap_or_else(|| match &found {
            Found::Missing => hosts_in(layout),
            found => found.hosts().to_vec(),
        });
        if wanted.is_empty() {
            wanted.push(Host::Name("localhost".to_owned()));
        }
        Ok(Self { found, asked, wanted })
    }

    /// The hosts that Berth's certificate names so far, and is to name no more.
    pub(super) fn hosts_dropped(&self) -> Vec<Host> {
        let Found::Berths { hosts, .. } = &self.found else { return Vec::new() };
        hosts.iter().filter(|host| !self.wanted.contains(host)).cloned().collect()
    }

    /// Whether the certificate is of Berth's own CA, which clients must be told to trust.
    pub(super) fn is_berths(&self) -> bool {
        !matches!(self.found, Found::Own { .. })
    }

    /// Makes or renews the certificate where that is due.
    pub(super) fn carry_out(
        &self,
        layout: &Layout,
        clock: &Clock,
        steps: &mut Steps,
    ) -> Result<(), Failure> {
        let files = &layout.certificates;
        let shown = files.server_pem().display().to_string();
        let what = match &self.found {
            Found::Own { hosts } => {
                steps.remark(format!("{shown} is your own and is used as it is"));
                for host in self.asked.iter().flatten().filter(|host| !hosts.contains(host)) {
                    steps.remark(format!("  it does not name {host}: see that it holds for it"));
                }
                return Ok(());
            }
            Found::Missing => format!("{shown}, issued by {}", files.ca_pem().display()),
            Found::Berths { hosts, is_ending, is_of_key } => {
                let set = |hosts: &[Host]| hosts.iter().cloned().collect::<BTreeSet<_>>();
                if set(hosts) == set(&self.wanted) && !is_ending && *is_of_key {
                    return Ok(());
                }
                let hosts: Vec<_> = self.wanted.iter().map(ToString::to_string).collect();
                format!("{shown} again for {}", hosts.join(", "))
            }
        };
        if steps.begin(what) {
            files.issue(&self.wanted, clock)?;
        }
        Ok(())
    }
}
