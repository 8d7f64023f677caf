//! Which loads there are, and for how long each stands.

use std::{io, time::Duration};

use clap::{ValueEnum, builder::PossibleValue};

use crate::{connections, crowd::Crowd, honest, memory, pulls, site::Site, statements, uploads};

/// A load. Each is bounded in count and time, and made by clients that anybody could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nothing but the good client
    Rest,
    /// 500 HTTP/1 connections that say nothing
    Idle500,
    /// 1,024 HTTP/1 connections that say nothing, as many as the registry takes
    Idle1024,
    /// 1,000 upload sessions of one pusher, 1,000 bytes in each
    Sessions1000,
    /// Upload sessions by one pusher, as many as can be begun
    SessionsMany,
    /// 200 pulls at 1 KB/s
    #[value(name = "pulls-1k")]
    Pulls1k,
    /// 200 pulls at 10 KB/s
    #[value(name = "pulls-10k")]
    Pulls10k,
    /// 200 uploads of 20 MB by one pusher, given up half way
    UploadsAborted,
    /// Tokens for nobody, as fast as they come
    Tokens,
    /// A1: 1,024 HTTP/2 connections that say nothing
    A1Silent,
    /// A1: 1,024 HTTP/2 connections that ask and allow no byte of the answer
    A1Window,
    /// A1: 1,024 HTTP/2 connections that stop in the middle of a head
    A1Headers,
    /// A2: 4,090 manifests in one repository, and indexes of all of them by 16 connections
    A2Index,
    /// A2: indexes of 100 manifests of 4 MiB by 8 connections
    A2Large,
    /// A2: the catalog of 20,000 repositories for somebody with 300 rules, by 16 connections
    A2Catalog,
    /// A3: 100 streams on each of 20 connections that allow no byte of a manifest of 4 MiB
    A3Manifests,
    /// A3: 100 streams on each of 20 connections that allow no byte of a blob of 2 MB
    A3Blobs,
    /// A3: the referrers of a manifest that has 100 of 4 MiB, by 4 connections
    A3Referrers100,
    /// A3: the referrers of a manifest that has 1,000 of 256 KiB (of 4 MiB they would be 4 GB)
    A3Referrers1000,
    /// A3: 100 manifests of 4 MiB on one connection that stop a byte before their end
    A3Puts,
    /// A3: manifests of 4 MiB whose `size` is a list of objects, by 8 connections
    A3Size,
    /// A5: 32 uploads of one pusher that trickle
    A5Trickle32,
    /// A5: 200 uploads of one pusher that trickle
    A5Trickle200,
    /// No attack: 200 pulls at 10 KB/s, each to its end
    HonestPulls,
    /// No attack: 200 kept connections of one address that all pull
    HonestKubelets,
}

impl Kind {
    /// All of them, in the order of the table.
    pub(crate) fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// What the command line calls it.
    pub(crate) fn name(self) -> String {
        self.value().get_name().to_owned()
    }

    /// What it is, in words.
    pub(crate) fn words(self) -> String {
        self.value().get_help().map(ToString::to_string).unwrap_or_default()
    }

    fn value(self) -> PossibleValue {
        self.to_possible_value().expect("no kind is hidden")
    }

    /// Whether it is no attack at all, and has to come to its end whole.
    pub(crate) fn is_honest(self) -> bool {
        matches!(self, Self::HonestPulls | Self::HonestKubelets)
    }

    /// How long it stands, unless all who make it are done before.
    pub(crate) fn time(self) -> Duration {
        Duration::from_secs(match self {
            Self::SessionsMany | Self::Tokens | Self::A2Index | Self::A2Large => 15,
            Self::A5Trickle32 | Self::A5Trickle200 => 15,
            Self::UploadsAborted => 30,
            Self::HonestPulls | Self::HonestKubelets => 120,
            _ => 10,
        })
    }

    /// Pushes what the load needs, and gives those who will make it.
    ///
    /// # Errors
    /// When the site does not take that.
    pub(crate) async fn prepare(self, site: &Site) -> io::Result<Crowd> {
        const MIB: usize = 1024 * 1024;
        match self {
            Self::Rest => Ok(Crowd::default()),
            Self::Idle500 => Ok(connections::idle(site, 500)),
            Self::Idle1024 => Ok(connections::idle(site, 1024)),
            Self::Sessions1000 => Ok(uploads::sessions(site, 1000)),
            Self::SessionsMany => Ok(uploads::sessions_without_end(site)),
            Self::Pulls1k => pulls::slow(site, 1000).await,
            Self::Pulls10k => pulls::slow(site, 10_000).await,
            Self::UploadsAborted => Ok(uploads::aborted(site)),
            Self::Tokens => Ok(connections::tokens(site)),
            Self::A1Silent => Ok(connections::silent(site)),
            Self::A1Window => Ok(connections::closed_windows(site)),
            Self::A1Headers => Ok(connections::unfinished_heads(site)),
            Self::A2Index => statements::indexes(site, 4090, 0, 16).await,
            Self::A2Large => statements::indexes(site, 100, 4 * MIB, 8).await,
            Self::A2Catalog => statements::catalog(site).await,
            Self::A3Manifests => memory::manifests(site).await,
            Self::A3Blobs => memory::blobs(site).await,
            Self::A3Referrers100 => memory::referrers(site, 100, 4 * MIB).await,
            Self::A3Referrers1000 => memory::referrers(site, 1000, MIB / 4).await,
            Self::A3Puts => memory::stalled_puts(site).await,
            Self::A3Size => memory::nested_sizes(site).await,
            Self::A5Trickle32 => Ok(uploads::trickling(site, 32)),
            Self::A5Trickle200 => Ok(uploads::trickling(site, 200)),
            Self::HonestPulls => honest::slow_pulls(site).await,
            Self::HonestKubelets => honest::kubelets(site).await,
        }
    }
}
