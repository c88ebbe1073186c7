//! QEMU and a kernel, fetched through the system's own package manager into a cache: nothing is installed, and neither
//! the system's sources nor its package lists are touched.
//!
//! The mirror is read off the system's configuration. Packages are checked by apt as always (signature, index, hash);
//! what was unpacked from them has its own list of hashes beside it, which [`Cache::verify`] checks. Once
//! fetched, nothing here needs a network.
//!
//! Needs `apt-get`, `apt-cache`, `dpkg`, `xz` and `sha256sum`, which every Debian has. On other systems a QEMU in PATH will
//! do, and a Debian mirror must be named for the kernel.
#![forbid(unsafe_code)]

use super::Error;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The kernel that is taken when none is asked for; where the mirror has dropped it, the newest there is.
pub const PINNED: &str = "7.3.4";

/// Suites with kernels. They are only unpacked, so a suite of another release does no harm.
const KERNEL_SUITES: [&str; 2] = ["trixie-backports", "bookworm-backports"];

/// Modules kept from a kernel, with what they depend on: the machine's cards, and what our test suites make.
const MODULES: [&str; 10] =
    ["virtio_net", "igb", "e1000e", "vmxnet3", "veth", "dummy", "ifb", "tun", "bridge", "sch_netem"];

const HASHES: &str = "SHA256SUMS";
const QEMU: &str = "qemu-system-x86_64";
const REMEDY: &str = "run `xdp-apps testbed vm fetch`";

/// Which of Debian's builds of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Drivers for virtual machines only: virtio, vmxnet3. 37 MB to fetch.
    Cloud,
    /// Every driver: also igb, e1000e. 121 MB to fetch.
    Full,
}

impl Flavour {
    fn suffix(self) -> &'static str {
        match self {
            Self::Cloud => "-cloud-amd64",
            Self::Full => "-amd64",
        }
    }

    fn is_of(self, name: &str) -> bool {
        let other = ["-cloud-amd64", "-rt-amd64"].into_iter().any(|suffix| name.ends_with(suffix));
        name.ends_with(self.suffix()) && (self == Self::Cloud || !other)
    }
}

/// A kernel, unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` says it: `7.3.4+deb13-cloud-amd64`.
    pub release: String,
    directory: PathBuf,
}

impl Kernel {
    /// The image to boot.
    pub fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// The files of these modules and of all they depend on, in the order to load them. Modules that it has built in, or has
    /// not at all, are left out.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<PathBuf>, Error> {
        let mut order = Vec::new();
        for name in wanted {
            self.add_module(name, &mut order)?;
        }
        Ok(order)
    }

    /// Whether it has this module as a file.
    pub fn has_module(&self, name: &str) -> bool {
        self.module(name).is_file()
    }

    fn module(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{}.ko", name.replace('-', "_")))
    }

    fn add_module(&self, name: &str, order: &mut Vec<PathBuf>) -> Result<(), Error> {
        let path = self.module(name);
        if order.contains(&path) || !path.is_file() {
            return Ok(());
        }
        let module =
            fs::read(&path).map_err(|error| Error::io(format!("read {}", path.display()), &error))?;
        for needed in dependencies(&module) {
            self.add_module(&needed, order)?;
        }
        order.push(path);
        Ok(())
    }
}

/// A QEMU for x86-64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// Its version: major, minor.
    pub version: (u32, u32),
    program: PathBuf,
    /// Where it was unpacked, unless it is the system's.
    root: Option<PathBuf>,
}

impl Qemu {
    /// The one in PATH, if it is at least that new.
    pub fn installed(oldest: (u32, u32)) -> Option<Self> {
        let path = env::var_os("PATH")?;
        let program =
            env::split_paths(&path).map(|entry| entry.join(QEMU)).find(|program| program.is_file())?;
        Self::at(program, None).filter(|found| found.version >= oldest)
    }

    fn at(program: PathBuf, root: Option<PathBuf>) -> Option<Self> {
        let mut qemu = Self { version: (0, 0), program, root };
        let output = qemu.command(false).arg("--version").stdin(Stdio::null()).output().ok()?;
        qemu.version = version_of(&String::from_utf8_lossy(&output.stdout))?;
        Some(qemu)
    }

    fn unpacked(root: PathBuf) -> Option<Self> {
        let program = root.join("usr/bin").join(QEMU);
        if program.is_file() { Self::at(program, Some(root)) } else { None }
    }

    /// Whether it was unpacked into the cache.
    pub fn is_cached(&self) -> bool {
        self.root.is_some()
    }

    /// The command that starts it; `nicely` leaves the processor to whoever else wants it.
    pub fn command(&self, nicely: bool) -> Command {
        let mut command = match nicely {
            true => Command::new("nice"),
            false => Command::new(&self.program),
        };
        if nicely {
            command.args(["-n", "10"]).arg(&self.program);
        }
        if let Some(root) = &self.root {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|path| root.join(path));
            let libraries = env::join_paths(libraries).unwrap_or_else(|_| OsString::new());
            command.env("LD_LIBRARY_PATH", libraries);
            for data in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(root.join(data));
            }
        }
        command
    }
}

/// Where what was fetched is kept: a directory for QEMU, one for each kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    directory: PathBuf,
    mirror: Option<String>,
}

impl Default for Cache {
    fn default() -> Self {
        Self::user()
    }
}

impl Cache {
    /// The user's: `xdp-apps/vm` under `XDG_CACHE_HOME`, else `~/.cache`; without either `target/vm`.
    pub fn user() -> Self {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        Self::at(base.map_or_else(|| PathBuf::from("target/vm"), |base| base.join("xdp-apps/vm")))
    }

    /// One of one's own.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), mirror: None }
    }

    /// Fetches from this Debian mirror (a URI whose `dists` has the suites), not from the system's own.
    pub fn mirror(mut self, uri: impl Into<String>) -> Self {
        self.mirror = Some(uri.into());
        self
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A kernel that was fetched: the newest that begins with `wanted`, a version such as `7.3` or `6.18.15`; without
    /// one the [pinned](PINNED), else the newest. No network.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is none, with what to run.
    pub fn kernel(&self, wanted: Option<&str>, flavour: Flavour) -> Result<Kernel, Error> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let releases: Vec<_> =
            names.filter_map(|name| name.strip_prefix("kernel-").map(str::to_string)).collect();
        // a full one does all that a cloud one does
        let flavours: &[Flavour] = match flavour {
            Flavour::Cloud => &[Flavour::Cloud, Flavour::Full],
            Flavour::Full => &[Flavour::Full],
        };
        let found = flavours.iter().find_map(|flavour| choose(&releases, wanted, *flavour));
        let Some(release) = found else {
            let what = match wanted {
                Some(wanted) => format!("no {flavour:?} kernel {wanted} in {}", self.directory.display()),
                None => format!("no {flavour:?} kernel in {}", self.directory.display()),
            };
            let mut remedy = REMEDY.to_string();
            if flavour == Flavour::Full {
                remedy = format!("{}`", REMEDY.replace("fetch`", "fetch --nic igb"));
            }
            if let Some(wanted) = wanted {
                remedy = format!("{} --kernel {wanted}`", remedy.trim_end_matches('`'));
            }
            return Err(Error::missing(what, remedy));
        };
        Ok(Kernel { directory: self.directory.join(format!("kernel-{release}")), release })
    }

    /// A QEMU at least that new: the system's, else the one that was fetched. No network.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is neither, with what to run.
    pub fn qemu(&self, oldest: (u32, u32)) -> Result<Qemu, Error> {
        let found = Qemu::installed(oldest).or_else(|| Qemu::unpacked(self.directory.join("qemu")));
        found.filter(|found| found.version >= oldest).ok_or_else(|| {
            let (major, minor) = oldest;
            Error::missing(
                format!(
                    "no QEMU {major}.{minor} or newer, neither in PATH nor in {}",
                    self.directory.display()
                ),
                format!("install qemu-system-x86, or {REMEDY}"),
            )
        })
    }

    /// As [`kernel`](Self::kernel), fetched if it is not there. Tells `say` what it does.
    pub fn fetch_kernel(
        &self,
        wanted: Option<&str>,
        flavour: Flavour,
        say: &mut dyn FnMut(&str),
    ) -> Result<Kernel, Error> {
        if let Ok(found) = self.kernel(wanted, flavour) {
            return Ok(found);
        }
        let start = Instant::now();
        let scratch = Scratch::new(&self.directory)?;
        let apt = Apt::new(&scratch.0, &self.source()?, &KERNEL_SUITES.map(str::to_string))?;
        let packages = apt.names("linux-")?;
        let images = packages.iter().filter_map(|name| name.strip_prefix("linux-image-"));
        let images: Vec<_> = images.filter(|name| !name.ends_with("-unsigned")).map(str::to_string).collect();
        let Some(release) = choose(&images, wanted, flavour) else {
            let lines: Vec<_> =
                images.iter().filter(|name| flavour.is_of(name)).map(String::as_str).collect();
            let what = format!("the mirror has no kernel {}", wanted.unwrap_or_default());
            return Err(Error::missing(what, format!("it has {}", lines.join(", "))));
        };
        // one package until 6.18; from 7.2 an empty one, the image and the modules; between them two
        let parts =
            ["linux-image-", "linux-binary-", "linux-modules-"].map(|part| format!("{part}{release}"));
        let parts: Vec<_> = parts.into_iter().filter(|part| packages.contains(part)).collect();
        say(&format!("fetching {}", parts.join(", ")));
        let archives = apt.download(&parts)?;
        let tree = scratch.0.join("tree");
        for archive in &archives {
            unpack(archive, &tree)?;
        }
        let kept = scratch.0.join("kept");
        keep_kernel(&tree, &release, &kept)?;
        seal(&kept)?;
        self.move_in(&kept, &format!("kernel-{release}"))?;
        say(&format!(
            "kernel {release}: {:.1} MB fetched, ready after {:.1} s",
            size_of_files(&archives) as f64 / 1e6,
            start.elapsed().as_secs_f64()
        ));
        self.kernel(Some(&release), flavour)
    }

    /// As [`qemu`](Self::qemu), fetched if it is not there. Tells `say` what it does.
    pub fn fetch_qemu(&self, oldest: (u32, u32), say: &mut dyn FnMut(&str)) -> Result<Qemu, Error> {
        if let Ok(found) = self.qemu(oldest) {
            return Ok(found);
        }
        let start = Instant::now();
        let codename = os_release("VERSION_CODENAME").filter(|_| is_debian()).ok_or_else(|| {
            Error::missing("this system's packages are not Debian's", "install QEMU by its own means")
        })?;
        let backports = format!("{codename}-backports");
        let suites = [codename.clone(), format!("{codename}-updates"), backports.clone()];
        let scratch = Scratch::new(&self.directory)?;
        let apt = Apt::new(&scratch.0, &self.source()?, &suites)?;
        say(&format!("fetching qemu-system-x86 of {codename} or {backports}, with what it needs"));
        let archives = apt.download_with_dependencies("qemu-system-x86", &backports)?;
        let tree = scratch.0.join("tree");
        for archive in &archives {
            unpack(archive, &tree)?;
        }
        seal(&tree)?;
        self.move_in(&tree, "qemu")?;
        let qemu = self.qemu(oldest)?;
        say(&format!(
            "QEMU {}.{}: {:.1} MB fetched, ready after {:.1} s",
            qemu.version.0,
            qemu.version.1,
            size_of_files(&archives) as f64 / 1e6,
            start.elapsed().as_secs_f64()
        ));
        Ok(qemu)
    }

    /// Whether everything in the cache still is what was unpacked. Returns how many files that are.
    pub fn verify(&self) -> Result<usize, Error> {
        let mut files = 0;
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(list) = fs::read_to_string(path.join(HASHES)) else { continue };
            let mut check = Command::new("sha256sum");
            check.args(["--check", "--quiet", "--strict", HASHES]).current_dir(&path);
            let remedy = format!("remove {} and fetch again", path.display());
            run(&mut check, "sha256sum").map_err(|error| Error::missing(error.to_string(), remedy))?;
            files += list.lines().count();
        }
        Ok(files)
    }

    /// Puts what is ready in its place, in one step; if somebody else was first, theirs stays.
    fn move_in(&self, ready: &Path, name: &str) -> Result<(), Error> {
        let place = self.directory.join(name);
        match fs::rename(ready, &place) {
            Ok(()) => Ok(()),
            Err(_) if place.join(HASHES).is_file() => Ok(()),
            Err(error) => Err(Error::io(format!("put {} in place", place.display()), &error)),
        }
    }

    /// Where packages come from.
    fn source(&self) -> Result<String, Error> {
        if let Some(mirror) = &self.mirror {
            return Ok(mirror.trim_end_matches('/').to_string());
        }
        let remedy = "name a Debian mirror with --mirror URI";
        if !is_debian() {
            return Err(Error::missing("this system's packages are not Debian's", remedy));
        }
        let codename = os_release("VERSION_CODENAME").unwrap_or_default();
        let uris = run(Command::new("apt-get").args(["update", "--print-uris"]), "apt-get")?;
        mirror_in(&uris, &codename)
            .ok_or_else(|| Error::missing(format!("no mirror of {codename} in apt's configuration"), remedy))
    }
}

/// A directory for work in progress, on the cache's own file system; gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(cache: &Path) -> Result<Self, Error> {
        let path = cache.join(format!("fetching-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| Error::io(format!("create {}", path.display()), &error))?;
        path.canonicalize().map(Self).map_err(|error| Error::io(format!("find {}", path.display()), &error))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // what stays is in nobody's way
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// apt with a state, a cache and sources of its own.
struct Apt {
    options: Vec<String>,
    archives: PathBuf,
}

impl Apt {
    /// Reads the suites' indexes.
    fn new(scratch: &Path, mirror: &str, suites: &[String]) -> Result<Self, Error> {
        let at = |name: &str| scratch.join(name).display().to_string();
        let archives = scratch.join("cache/archives");
        let source = scratch.join("mirror.sources");
        let failed = |error| Error::io("prepare apt's own directories", &error);
        fs::create_dir_all(scratch.join("lists/partial")).map_err(failed)?;
        fs::create_dir_all(archives.join("partial")).map_err(failed)?;
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let signed = if Path::new(keys).is_file() { format!("Signed-By: {keys}\n") } else { String::new() };
        let text =
            format!("Types: deb\nURIs: {mirror}\nSuites: {}\nComponents: main\n{signed}", suites.join(" "));
        fs::write(&source, text).map_err(failed)?;
        let options = [
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", source.display()),
            "Dir::Etc::sourceparts=/dev/null".to_string(),
            "Acquire::Languages=none".to_string(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_string(),
            "Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled=false".to_string(),
            "Acquire::Retries=2".to_string(),
            "APT::Architecture=amd64".to_string(),
            "APT::Sandbox::User=root".to_string(),
            "Debug::NoLocking=1".to_string(),
        ];
        let apt = Self {
            options: options.into_iter().flat_map(|option| ["-o".to_string(), option]).collect(),
            archives,
        };
        run(apt.command("apt-get").args(["--quiet", "--error-on=any", "update"]), "apt-get update")?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    /// The packages whose names begin so.
    fn names(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let names = run(self.command("apt-cache").args(["pkgnames", prefix]), "apt-cache")?;
        Ok(names.lines().map(str::to_string).collect())
    }

    /// Fetches these packages and no other.
    fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>, Error> {
        let mut command = self.command("apt-get");
        command.args(["--quiet", "download"]).args(packages).current_dir(&self.archives);
        run(&mut command, "apt-get download")?;
        self.fetched()
    }

    /// Fetches a package and those of its dependencies that this system has not installed.
    fn download_with_dependencies(&self, package: &str, suite: &str) -> Result<Vec<PathBuf>, Error> {
        let mut command = self.command("apt-get");
        command.args(["--quiet", "--yes", "--download-only", "--no-install-recommends", "-t", suite]);
        run(command.args(["install", package]), "apt-get install --download-only")?;
        self.fetched()
    }

    fn fetched(&self) -> Result<Vec<PathBuf>, Error> {
        let mut archives = files_under(&self.archives)?;
        archives.retain(|path| path.extension().is_some_and(|end| end == "deb"));
        if archives.is_empty() {
            return Err(Error::broken("apt fetched nothing", ""));
        }
        Ok(archives)
    }
}

/// Keeps the image and the modules of interest, unpacked, all in one directory.
fn keep_kernel(tree: &Path, release: &str, kept: &Path) -> Result<(), Error> {
    let failed = |error| Error::io("keep the kernel", &error);
    fs::create_dir_all(kept).map_err(failed)?;
    let files = files_under(tree)?;
    let is_image = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name == "vmlinuz" || name == format!("vmlinuz-{release}")
    };
    let image = files.iter().find(is_image);
    let image = image.ok_or_else(|| Error::broken(format!("no image in the packages of {release}"), ""))?;
    fs::copy(image, kept.join("vmlinuz")).map_err(failed)?;
    let mut wanted: Vec<String> = MODULES.map(str::to_string).to_vec();
    while let Some(name) = wanted.pop() {
        let place = kept.join(format!("{name}.ko"));
        let Some(packed) = files.iter().find(|path| module_name(path).as_deref() == Some(&name)) else {
            continue; // built in, or not in this flavour
        };
        if !place.exists() {
            unpack_module(packed, &place)?;
            let module = fs::read(&place).map_err(failed)?;
            wanted.extend(dependencies(&module));
        }
    }
    Ok(())
}

/// `virtio_net` of `…/virtio-net.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))?;
    Some(stem.replace('-', "_"))
}

fn unpack_module(packed: &Path, place: &Path) -> Result<(), Error> {
    let failed = |error| Error::io(format!("unpack {}", packed.display()), &error);
    if packed.extension().is_some_and(|end| end == "ko") {
        return fs::copy(packed, place).map(drop).map_err(failed);
    }
    let file = fs::File::create(place).map_err(failed)?;
    run(Command::new("xz").arg("-dc").arg(packed).stdout(file), "xz").map(drop)
}

/// What a module says it depends on, in its `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let entry = module.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let list = String::from_utf8_lossy(entry.unwrap_or_default()).into_owned();
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// The release among these that is wanted.
fn choose(releases: &[String], wanted: Option<&str>, flavour: Flavour) -> Option<String> {
    let of_flavour = || releases.iter().filter(|release| flavour.is_of(release));
    let newest_of = |version: &str| {
        let matching = of_flavour().filter(|release| {
            let rest = release.strip_prefix(version);
            rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
        });
        matching.max_by_key(|release| numbers(release)).cloned()
    };
    match wanted {
        Some(wanted) => newest_of(wanted),
        None => newest_of(PINNED)
            .or_else(|| newest_of(""))
            .or_else(|| of_flavour().max_by_key(|one| numbers(one)).cloned()),
    }
}

/// A version as numbers, to compare.
fn numbers(version: &str) -> Vec<u32> {
    let parts = version.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

/// The base of the mirror that has this suite, in what `apt-get update --print-uris` prints.
fn mirror_in(uris: &str, suite: &str) -> Option<String> {
    let end = format!("/dists/{suite}/InRelease");
    let quoted = uris.lines().filter_map(|line| line.strip_prefix('\'')?.split('\'').next());
    quoted.filter_map(|uri| uri.strip_suffix(&end)).map(str::to_string).next()
}

/// `(10, 0)` of `QEMU emulator version 10.0.2 (Debian …)`.
fn version_of(said: &str) -> Option<(u32, u32)> {
    let version = said.split("version ").nth(1)?;
    let mut parts = version.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn is_debian() -> bool {
    os_release("ID").is_some_and(|id| id == "debian")
}

/// A field of the file that says which system this is.
fn os_release(field: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_string())
}

fn unpack(archive: &Path, tree: &Path) -> Result<(), Error> {
    fs::create_dir_all(tree).map_err(|error| Error::io(format!("create {}", tree.display()), &error))?;
    run(Command::new("dpkg").arg("-x").arg(archive).arg(tree), "dpkg -x").map(drop)
}

/// Writes the hashes of all files in a directory, beside them.
fn seal(directory: &Path) -> Result<(), Error> {
    let files = files_under(directory)?;
    let relative = files.iter().filter_map(|path| path.strip_prefix(directory).ok());
    let hashes = run(Command::new("sha256sum").args(relative).current_dir(directory), "sha256sum")?;
    fs::write(directory.join(HASHES), hashes).map_err(|error| Error::io("write the hashes", &error))
}

/// All plain files under a directory, sorted.
fn files_under(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::io(format!("read {}", directory.display()), &error);
    let mut files = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

fn size_of_files(files: &[PathBuf]) -> u64 {
    files.iter().filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}

/// Runs a program to its end; what it wrote, or the last it said.
fn run(command: &mut Command, name: &str) -> Result<String, Error> {
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::missing(format!("{name} is not on this machine"), "install it")
        }
        _ => Error::io(format!("start {name}"), &error),
    })?;
    if !output.status.success() {
        return Err(Error::broken(
            format!("{name} failed ({})", output.status),
            String::from_utf8_lossy(&output.stderr),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn releases() -> Vec<String> {
        let all = [
            "6.12.95+deb12-cloud-amd64",
            "6.18.5+deb13-cloud-amd64",
            "6.18.15+deb13-cloud-amd64",
            "6.18.15+deb13-amd64",
            "7.2.12+deb13-cloud-amd64",
            "7.10.1+deb13-cloud-amd64",
            "7.10.1+deb13-rt-amd64",
        ];
        all.map(str::to_string).to_vec()
    }

    #[test]
    fn the_newest_kernel_of_a_line_is_chosen_by_number_and_flavour() {
        let chosen = |wanted, flavour| choose(&releases(), wanted, flavour);
        assert_eq!(chosen(Some("6.18"), Flavour::Cloud).as_deref(), Some("6.18.15+deb13-cloud-amd64"));
        assert_eq!(chosen(Some("6.18"), Flavour::Full).as_deref(), Some("6.18.15+deb13-amd64"));
        assert_eq!(chosen(Some("6.18.5"), Flavour::Cloud).as_deref(), Some("6.18.5+deb13-cloud-amd64"));
        assert_eq!(chosen(Some("7.1"), Flavour::Cloud), None, "7.10 is no 7.1");
        assert_eq!(chosen(Some("7"), Flavour::Full), None, "real-time is another flavour");
    }

    #[test]
    fn without_a_wish_the_pinned_kernel_else_the_newest_is_chosen() {
        let mut releases = releases();
        assert_eq!(choose(&releases, None, Flavour::Cloud).as_deref(), Some("7.10.1+deb13-cloud-amd64"));
        releases.push(format!("{PINNED}+deb13-cloud-amd64"));
        assert_eq!(choose(&releases, None, Flavour::Cloud), releases.last().cloned());
    }

    #[test]
    fn the_mirror_is_the_one_that_has_the_systems_own_suite() {
        let uris = "'http://a.example/security/dists/stable-security/InRelease' x 0 \n\
                    'http://b.example/debian/dists/stable/InRelease' y 0 \n\
                    'http://c.example/debian/dists/stable/main/binary-amd64/Packages.xz' z 0 \n";
        assert_eq!(mirror_in(uris, "stable").as_deref(), Some("http://b.example/debian"));
        assert_eq!(mirror_in(uris, "next"), None);
    }

    #[test]
    fn a_module_names_what_it_depends_on() {
        let info = b"\x7fELF..\0license=GPL\0depends=dca,i2c-algo-bit\0name=igb\0";
        assert_eq!(dependencies(info), ["dca", "i2c_algo_bit"]);
        assert_eq!(dependencies(b"license=GPL\0depends=\0"), [""; 0]);
        assert_eq!(module_name(Path::new("a/i2c-algo-bit.ko.xz")).as_deref(), Some("i2c_algo_bit"));
        assert_eq!(module_name(Path::new("a/modules.dep")), None);
    }

    #[test]
    fn the_version_of_qemu_is_read() {
        assert_eq!(version_of("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n"), Some((10, 0)));
        assert_eq!(version_of("sh: not found"), None);
    }

    #[test]
    fn an_empty_cache_says_what_to_run() {
        let cache = Cache::at(env::temp_dir().join("xdp-apps-no-such-cache"));
        let error = cache.kernel(None, Flavour::Cloud).unwrap_err().to_string();
        assert!(error.ends_with("run `xdp-apps testbed vm fetch`"), "{error}");
        let error = cache.kernel(Some("6.18"), Flavour::Full).unwrap_err().to_string();
        assert!(error.ends_with("run `xdp-apps testbed vm fetch --nic igb --kernel 6.18`"), "{error}");
    }
}
