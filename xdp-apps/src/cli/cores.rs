//! Cores: which worker runs where, and no two programs of ours on one core by accident.
#![forbid(unsafe_code)]

use super::failure::Failure;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use xdp_core::cpu;

/// Cores for workers, and our claim on them while the value lives.
#[derive(Debug)]
pub(crate) struct Cores {
    /// One for each worker, in their order; a core may serve several.
    pub(crate) of: Vec<usize>,
    /// Those that another xdp-apps runs on as well.
    pub(crate) shared: Vec<usize>,
    /// One that no xdp-apps runs on, for what can wait.
    pub(crate) spare: Option<usize>,
    _claims: Vec<UnixDatagram>,
}

impl Cores {
    /// Cores for `workers`: the `wanted` ones in their order, else the last allowed ones that no other xdp-apps has claimed (the
    /// kernel puts its own work on the first). Fewer cores than workers serve several each.
    ///
    /// # Errors
    /// A wanted core that this process may not run on.
    pub(crate) fn choose(workers: usize, wanted: Option<&[usize]>) -> Result<Self, Failure> {
        let allowed = cpu::allowed()?;
        if let Some(core) = wanted.into_iter().flatten().find(|core| !allowed.contains(core)) {
            let shown: Vec<_> = allowed.iter().map(ToString::to_string).collect();
            return Err(Failure::usage(format!(
                "run on core {core}: it is not allowed, or not there; choose among {}",
                shown.join(", ")
            )));
        }
        let (mut cores, mut shared, mut claims) = (Vec::new(), Vec::new(), Vec::new());
        match wanted {
            Some(wanted) => {
                for &core in wanted.iter().take(workers) {
                    cores.push(core);
                    match claim(core) {
                        Some(claim) => claims.push(claim),
                        None => shared.push(core),
                    }
                }
            }
            None => {
                for &core in allowed.iter().rev() {
                    if cores.len() == workers {
                        break;
                    }
                    if let Some(claim) = claim(core) {
                        cores.push(core);
                        claims.push(claim);
                    }
                }
                if cores.is_empty() {
                    cores.extend(allowed.last());
                    shared.extend(allowed.last());
                }
            }
        }
        let free = |core: &&usize| !cores.contains(core) && claim(**core).is_some();
        let spare = allowed.iter().find(free).copied();
        let of = cores.iter().copied().cycle().take(workers).collect();
        Ok(Self { of, shared, spare, _claims: claims })
    }
}

/// Claims a core among the processes of this network namespace by a socket's abstract name, which goes with the process;
/// `None` if another has it.
fn claim(core: usize) -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("xdp-apps/core/{core}")).ok()?;
    UnixDatagram::bind_addr(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_go_round_when_there_are_more_workers() {
        let first = cpu::allowed().unwrap()[0];
        let cores = Cores::choose(3, Some(&[first])).unwrap();
        assert_eq!(cores.of, [first; 3]);
    }

    #[test]
    fn a_core_that_is_not_there_is_refused_with_those_that_are() {
        let error = Cores::choose(1, Some(&[4000])).unwrap_err();
        assert!(error.to_string().starts_with("run on core 4000: it is not allowed"), "{error}");
    }
}
