//! A TCP proxy that fails on demand: it cuts, delays, holds back or refuses connections.
//!
//! It runs on a thread of its own, so that a test may block its runtime without stopping the
//! traffic.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::ports::ReservedPort;

/// What the proxy does to the traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// New connections are closed at once.
    pub refuse: bool,
    /// Connections stay open, and nothing passes.
    pub hold: bool,
    /// Everything that passes is this late, in each direction.
    pub delay: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    faults: Faults,
    /// Connections made under an earlier number are cut.
    generation: u64,
    stopped: bool,
}

/// A running proxy; it ends when it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepted: Arc<Mutex<u64>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _port: ReservedPort,
}

impl FaultProxy {
    /// Starts a proxy before `target`.
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let port = ReservedPort::take()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port.number()))
            .context("failed to bind the proxy")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (state, observed) = watch::channel(State::default());
        let accepted = Arc::new(Mutex::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the proxy")?;
        let counter = Arc::clone(&accepted);
        let thread =
            std::thread::Builder::new().name("fault-proxy".to_owned()).spawn(move || {
                runtime.block_on(serve(listener, target, observed, &counter));
            })?;
        Ok(Self { address, state, accepted, thread: Some(thread), _port: port })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were taken so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what is done to the traffic, also of connections that are open.
    pub fn set(&self, faults: Faults) {
        self.state.send_modify(|state| state.faults = faults);
    }

    /// Closes every open connection; new ones are taken.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Closes every open connection, and refuses new ones until [`Self::heal`].
    pub fn partition(&self) {
        self.state.send_modify(|state| {
            state.faults.refuse = true;
            state.generation += 1;
        });
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.set(Faults::default());
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.stopped = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    target: SocketAddr,
    mut state: watch::Receiver<State>,
    accepted: &Mutex<u64>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let observed = state.clone();
    loop {
        tokio::select! {
            _ = state.wait_for(|state| state.stopped) => return,
            connection = listener.accept() => {
                let Ok((client, _)) = connection else { continue };
                *accepted.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                let State { faults, generation, .. } = *observed.borrow();
                if !faults.refuse {
                    tokio::spawn(relay(client, target, observed.clone(), generation));
                }
            }
        }
    }
}

async fn relay(
    client: TcpStream,
    target: SocketAddr,
    mut state: watch::Receiver<State>,
    generation: u64,
) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    tokio::select! {
        () = pump(client_in, server_out, state.clone()) => {}
        () = pump(server_in, client_out, state.clone()) => {}
        _ = state.wait_for(|state| state.generation != generation || state.stopped) => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let delay = state.borrow().faults.delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if state.wait_for(|state| !state.faults.hold).await.is_err()
            || to.write_all(&buffer[..read]).await.is_err()
        {
            return;
        }
    }
}
