//! Frames in and out of a device.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use crate::sys;

/// How long a device may take to make room for a frame, in milliseconds.
const SEND_PATIENCE: u16 = 5_000;

/// A packet socket on one device. Received frames are as a program on the device's ingress would see them.
pub struct RawSocket {
    file: File,
}

impl RawSocket {
    /// Opens it in the calling thread's network namespace.
    #[track_caller]
    pub(crate) fn open(device: &str) -> Self {
        let index = if_nametoindex(device).unwrap_or_else(|error| panic!("no device {device}: {error}"));
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, flags, None).expect("packet sockets need root");
        sys::bind_packet_socket(&socket, index)
            .unwrap_or_else(|error| panic!("cannot bind to {device}: {error}"));
        Self { file: socket.into() }
    }

    /// Sends a frame.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        let mut sent = (&self.file).write(frame);
        // The device's queue may be full: a flood is faster than an emulated machine.
        while sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            let ready = poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], SEND_PATIENCE);
            assert!(ready.is_ok_and(|ready| ready > 0), "the device takes no more frames");
            sent = (&self.file).write(frame);
        }
        let sent = sent.unwrap_or_else(|error| panic!("cannot send a frame: {error}"));
        assert_eq!(sent, frame.len(), "the frame was cut");
    }

    /// The next frame for which `pick` gives something, or `None` when there is none in time.
    pub fn receive<T>(&self, limit: Duration, mut pick: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut frame = vec![0; 1 << 16];
        loop {
            while let Ok(length) = (&self.file).read(&mut frame) {
                if let Some(picked) = pick(&frame[..length]) {
                    return Some(picked);
                }
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let timeout = PollTimeout::try_from(left.as_millis() as i32 + 1).ok()?;
            let _ = poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }

    /// All frames for which `pick` gives something until `limit` passed.
    pub fn collect<T>(&self, limit: Duration, mut pick: impl FnMut(&[u8]) -> Option<T>) -> Vec<T> {
        let mut picked = Vec::new();
        self.receive(limit, |frame| {
            picked.extend(pick(frame));
            None::<()>
        });
        picked
    }
}
