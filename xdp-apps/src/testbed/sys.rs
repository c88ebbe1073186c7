//! The few system calls that only process 1 of a machine makes.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use xdp_core::Errno;

/// The kernel's -1 as an [`Errno`].
fn check(returned: i64) -> Result<(), Errno> {
    if returned < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// `mount` of a file system without a device.
pub(super) fn mount(kind: &CStr, at: &CStr) -> Result<(), Errno> {
    // SAFETY: the names are live C strings, and no data is passed.
    check(unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, core::ptr::null()) }.into())
}

/// `finit_module` without parameters; needs CAP_SYS_MODULE. `EEXIST` if it is loaded.
pub(super) fn load_module(module: &impl AsRawFd) -> Result<(), Errno> {
    let parameters = c"";
    // SAFETY: the parameters are a live C string; the descriptor is only read from.
    check(unsafe {
        libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), parameters.as_ptr(), 0 as c_int)
    })
}

/// Makes a terminal pass bytes as they are: `cfmakeraw`.
pub(super) fn make_raw(terminal: &impl AsRawFd) -> Result<(), Errno> {
    let fd = terminal.as_raw_fd();
    let mut settings = core::mem::MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: room for the settings.
    check(unsafe { libc::tcgetattr(fd, settings.as_mut_ptr()) }.into())?;
    // SAFETY: written by the call before.
    let mut settings = unsafe { settings.assume_init() };
    // SAFETY: live settings, changed in place.
    unsafe { libc::cfmakeraw(&raw mut settings) };
    // SAFETY: live settings, read.
    check(unsafe { libc::tcsetattr(fd, libc::TCSANOW, &raw const settings) }.into())
}

/// Waits until all that was written has left the terminal: `tcdrain`.
pub(super) fn drain(terminal: &impl AsRawFd) -> Result<(), Errno> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::tcdrain(terminal.as_raw_fd()) }.into())
}

/// Ends the machine through QEMU's `isa-debug-exit`, with this byte; needs CAP_SYS_RAWIO. Returns only if it cannot.
pub(super) fn exit_machine(byte: u8) -> Result<(), Errno> {
    const PORT: u16 = 0xf4;
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: no memory is passed.
        check(unsafe { libc::ioperm(PORT.into(), 1, 1) }.into())?;
        // SAFETY: the port was opened to us by the call before. In this machine only the exit device is behind it, or
        // nothing: neither touches our memory.
        unsafe {
            core::arch::asm!("out dx, al", in("dx") PORT, in("al") byte, options(nomem, nostack, preserves_flags))
        };
        Ok(())
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = byte;
        Err(Errno::ENODEV)
    }
}

/// Switches the machine off. Returns only if it cannot.
pub(super) fn power_off() -> Errno {
    // SAFETY: no memory is passed.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    Errno::last()
}

/// Ends the process if the thread that starts it ends: nothing outlives us, whatever kills us.
pub(super) fn die_with_us(command: &mut Command) {
    // SAFETY: between fork and exec only an async-signal-safe system call is made, and nothing is allocated.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
}
