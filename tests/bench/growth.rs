//! What a store costs that grows: the same asked of stores of several sizes, in turns, and how long
//! the server takes to start on the largest.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ::http::StatusCode;
use clap::ValueEnum;

use crate::{
    Options,
    berth::{Installation, REGISTRY},
    content::{CONFIG, MANIFEST_TYPE, image_of, random, sha256_of},
    goal::{self, START_MILLIS},
    peer::{Name, Peer, end},
    result::Middle,
    start::Place,
    store::{Manifest, Store, blob, image},
    table::verdict,
    tool::{self, Asked},
    work::{Unit, many},
};

/// How many more of everything a store has than its row says, so that every page is a full one.
const BEHIND: usize = 1000;

/// How many names are asked for where a few are: all of them fit into the server's cache.
const FEW: usize = 1000;

/// How many where any is: ten times as many as the cache holds.
const ANY: usize = 100_000;

/// How often the server is started.
const STARTS: usize = 5;

/// After what time a server that does not answer will not.
const START_TIME_MAX: Duration = Duration::from_secs(60);

const CONNECTIONS: usize = 32;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Look {
    FewTags,
    AnyTag,
    TagPage,
    CatalogPage,
    ReferrersPage,
    FewBlobs,
    AnyBlob,
    Push,
}

/// A store and the servers on it.
struct Grown {
    size: usize,
    installation: Installation,
    peer: Peer,
    /// What each look asks for.
    paths: PathBuf,
}

/// Fills the stores, asks, and prints both tables.
pub(crate) async fn measure(
    options: &Options,
    bin: &Path,
    root: &Path,
    sizes: &[usize],
) -> io::Result<()> {
    let mut stores = Vec::new();
    for size in sizes {
        stores.push(Grown::make(bin, root, *size).await?);
        eprintln!("the store of {size} is filled");
    }
    let looks = Look::value_variants();
    let mut figures = vec![vec![Vec::new(); stores.len()]; looks.len()];
    for round in 1..=options.rounds {
        for (look, figures) in looks.iter().zip(&mut figures) {
            let mut measured: Vec<usize> = (0..stores.len()).collect();
            measured.retain(|at| look.suits(sizes[*at]));
            // The smallest once more, so that the row tells by how much a store differs from itself.
            measured.extend(measured.first().copied());
            for at in measured {
                figures[at].push(look.measure(&stores[at], options).await?);
            }
        }
        eprintln!("growth, round {round} of {} is done", options.rounds);
    }
    print(options, sizes, &figures);
    if let Some(largest) = stores.pop() {
        largest.print_start().await?;
    }
    for mut store in stores {
        store.peer.end().await;
    }
    Ok(())
}

impl Grown {
    async fn make(bin: &Path, root: &Path, size: usize) -> io::Result<Self> {
        let root = root.join(size.to_string());
        let installation =
            Installation::make(bin, &root, Name::BerthTls, &Place::default()).await?;
        // Which makes the tables.
        installation.start().await?.end().await;
        fill(&installation.data(), size).await?;
        // What the filling left to the system would be written beside what is measured.
        nix::unistd::sync();
        let peer = installation.start().await?;
        let paths = root.join("paths");
        fs::create_dir(&paths)?;
        for look in Look::value_variants() {
            fs::write(look.file(&paths), look.paths(size).join("\n"))?;
        }
        Ok(Self { size, installation, peer, paths })
    }

    /// Starts the server on this store a few times, and prints how long that takes.
    async fn print_start(mut self) -> io::Result<()> {
        let mut millis = Vec::new();
        for _ in 0..STARTS {
            if let Some(mut registry) = self.peer.servers.pop() {
                end(&mut registry).await;
            }
            let begun = Instant::now();
            self.peer.servers.push(self.installation.server("registry-server", REGISTRY)?);
            self.until_answers().await?;
            millis.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        self.peer.end().await;
        let Some(middle) = Middle::of(&millis) else { return Ok(()) };
        let size = told(self.size);
        println!("\n| what | median of {STARTS} | goal |\n|---|---|---|");
        println!(
            "| registry-server on the store of {size}, from `exec` to the first answer | {:.0} ms [{:.0} %] | ≤ {START_MILLIS} ms {} |",
            middle.median,
            middle.spread * 100.0,
            verdict(middle.median <= START_MILLIS)
        );
        Ok(())
    }

    async fn until_answers(&self) -> io::Result<()> {
        let url = format!("{}/v2/", self.peer.base);
        let begun = Instant::now();
        loop {
            match self.peer.http.send("GET", &url, None, None, "").await {
                Ok(answer) => return answer.expect(&[StatusCode::UNAUTHORIZED]).map(drop),
                Err(error) if begun.elapsed() > START_TIME_MAX => return Err(error),
                // Nobody tells when it listens.
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

fn tag(number: usize) -> String {
    format!("v{number:07}")
}

fn repository(number: usize) -> String {
    format!("team/app{number:07}")
}

fn subject() -> String {
    sha256_of(&image(0, &[], None).into())
}

/// One repository with a manifest, a tag and a blob for each number, of which all manifests refer to
/// one; and as many repositories with one manifest.
async fn fill(data: &Path, size: usize) -> io::Result<()> {
    const BIG: usize = 1;
    let count = size + BEHIND;
    // What was touched just now is not touched again by who asks for it.
    let mut store = Store::open(data, Duration::ZERO).await?;
    let names = std::iter::once("bench/app".to_owned()).chain((0..count).map(repository));
    store.repositories(names).await?;
    store.blobs((0..count).map(|number| (BIG, blob(number)))).await?;
    store.files(some(size, ANY).map(blob))?;
    let of = |repository, bytes| Manifest {
        repository,
        bytes,
        subject: None,
        layers: Vec::new(),
        tag: None,
    };
    let only = image(0, &[], None);
    store.manifests((0..=count).map(|number| of(number + BIG, only.clone()))).await?;
    let subject = subject();
    let referrers = (1..=count).map(|number| {
        let layers = vec![blob(number - 1)];
        let bytes = image(number, &layers, Some(&subject));
        let (subject, tag) = (Some(subject.clone()), Some(tag(number - 1)));
        Manifest { subject, layers, tag, ..of(BIG, bytes) }
    });
    store.manifests(referrers).await?;
    store.close().await
}

/// So many numbers below `size`, evenly spread; all of them where there are no more.
fn some(size: usize, count: usize) -> impl Iterator<Item = usize> + Clone {
    (0..size).step_by((size / count).max(1))
}

impl Look {
    fn words(self) -> String {
        let among = |count| format!("{} of them in use", told(count));
        match self {
            Self::FewTags => format!("manifest by tag, {}", among(FEW)),
            Self::AnyTag => "manifest by tag, any of them".to_owned(),
            Self::TagPage => "page of 100 tags".to_owned(),
            Self::CatalogPage => "page of 100 repositories".to_owned(),
            Self::ReferrersPage => "page of 100 referrers".to_owned(),
            Self::FewBlobs => format!("`HEAD` of a blob, {}", among(FEW)),
            Self::AnyBlob => "`HEAD` of a blob, any of them".to_owned(),
            Self::Push => "push of an image of 4 KiB".to_owned(),
        }
    }

    /// Whether a store has so many that any of them is not in memory.
    fn suits(self, size: usize) -> bool {
        size >= ANY || !matches!(self, Self::AnyTag | Self::AnyBlob)
    }

    fn file(self, directory: &Path) -> PathBuf {
        directory.join(format!("{self:?}"))
    }

    fn paths(self, size: usize) -> Vec<String> {
        let manifest = |number| format!("/v2/bench/app/manifests/{}", tag(number));
        let head = |number| format!("/v2/bench/app/blobs/{}", blob(number));
        let subject = subject();
        match self {
            Self::FewTags => some(size, FEW).map(manifest).collect(),
            Self::AnyTag => some(size, ANY).map(manifest).collect(),
            Self::TagPage => some(size, ANY)
                .map(|number| format!("/v2/bench/app/tags/list?n=100&last={}", tag(number)))
                .collect(),
            Self::CatalogPage => some(size, ANY)
                .map(|number| format!("/v2/_catalog?n=100&last={}", repository(number)))
                .collect(),
            // Behind any digest of the first half is a page.
            Self::ReferrersPage => some(size, ANY)
                .map(blob)
                .filter(|digest| digest.as_str() < "sha256:8")
                .map(|last| format!("/v2/bench/app/referrers/{subject}?n=100&last={last}"))
                .collect(),
            Self::FewBlobs => some(size, FEW).map(head).collect(),
            Self::AnyBlob => some(size, ANY).map(head).collect(),
            Self::Push => Vec::new(),
        }
    }

    async fn measure(self, store: &Grown, options: &Options) -> io::Result<f64> {
        let measured = match self {
            Self::Push => push(&store.peer, options.many).await,
            Self::FewBlobs | Self::AnyBlob => self.load("HEAD", store, options.secs).await,
            _ => self.load("GET", store, options.secs).await,
        };
        let failed = |error| io::Error::other(format!("{}, {}: {error}", self.words(), store.size));
        let rate = measured.map_err(failed)?;
        eprintln!("{}, of {}: {}", self.words(), store.size, Unit::PerSecond.told(rate));
        Ok(rate)
    }

    async fn load(self, method: &'static str, store: &Grown, secs: u64) -> io::Result<f64> {
        let authorization = store.peer.authorization().await?;
        let file = self.file(&store.paths);
        let asked = Asked::AnyOf { method, file: &file };
        tool::wrk(&store.peer.base, asked, authorization.as_deref(), CONNECTIONS, secs).await
    }
}

/// Images whose config, layer and manifest nobody has, by several clients.
async fn push(peer: &Peer, count: usize) -> io::Result<f64> {
    many(peer, count, |pusher, number| async move {
        let (config, layer) = (random(CONFIG.len()), random(4096));
        let manifest = image_of(&config, &layer, number);
        let tag = format!("pushed-{}", &sha256_of(&manifest)["sha256:".len()..]);
        pusher.push_blob("app", config).await?;
        pusher.push_blob("app", layer).await?;
        pusher.put_manifest_into("app", &tag, MANIFEST_TYPE, manifest).await
    })
    .await
}

fn print(options: &Options, sizes: &[usize], figures: &[Vec<Vec<f64>>]) {
    println!(
        "\nThe same asked of stores that hold so many tags, blobs, repositories and referrers of one \
         manifest (and {BEHIND} more, so that every page is a full one), medians of {} rounds of {} s \
         in turns, {CONNECTIONS} connections ({} images by 16 for pushes); behind each figure what it \
         is of the smallest store's, and in brackets by how much that differs from itself. What the \
         server was last asked for it keeps in memory, some ten thousand names; *any of them* are \
         more, which a small store does not have.\n",
        options.rounds, options.secs, options.many
    );
    let heads: Vec<String> = sizes.iter().map(|size| told(*size)).collect();
    println!(
        "| what | {} | flat within {:.0} % or the spread |",
        heads.join(" | "),
        goal::FLAT * 100.0
    );
    println!("|---|{}---|", "---|".repeat(sizes.len()));
    for (look, figures) in Look::value_variants().iter().zip(figures) {
        let middles: Vec<_> = figures.iter().map(|figures| Middle::of(figures)).collect();
        let Some(smallest) = middles.iter().flatten().next() else { continue };
        let ratio = |middle: &Middle| middle.median / smallest.median;
        let mut row = vec![look.words()];
        row.extend(middles.iter().map(|middle| match middle {
            Some(middle) if std::ptr::eq(middle, smallest) => {
                format!("{} [{:.0} %]", Unit::PerSecond.told(middle.median), middle.spread * 100.0)
            }
            Some(middle) => {
                format!("{} ({:.2}×)", Unit::PerSecond.told(middle.median), ratio(middle))
            }
            None => "–".to_owned(),
        }));
        let least = 1.0 - goal::FLAT.max(smallest.spread);
        row.push(verdict(middles.iter().flatten().all(|it| ratio(it) >= least)).to_owned());
        println!("| {} |", row.join(" | "));
    }
}

/// A count as people write it.
fn told(count: usize) -> String {
    match count {
        0..1000 => count.to_string(),
        _ => format!("{},{:03}", told(count / 1000), count % 1000),
    }
}
