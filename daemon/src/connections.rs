//! How many callers are let in at once: what they take of this process' descriptors leaves the
//! engine those for its servers.
//!
//! Where a listener has as many connections as it may, a new one is let in for one that is cut: of
//! those that have not shown who they are the oldest, else the one on which nothing has moved for
//! the longest. So nobody keeps others out by connecting often or by being slow.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::{debug, warn};

/// More descriptors than this are never of use here, and tables of them cost memory.
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// Fewer descriptors than this may be too few for a migration: each side's members take up to a
/// hundred connections.
const FEW_DESCRIPTORS: u64 = 512;

/// How long a listener waits after it could not take a connection: most often there is no
/// descriptor at that moment.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Raises the number of descriptors that this process may have to what the system lets it raise it
/// to.
pub fn raise_descriptors() {
    let had = getrlimit(Resource::Nofile);
    let most = had.maximum.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS);
    if had.current.is_some_and(|current| current < most)
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: had.maximum })
    {
        warn!(%error, most, "failed to raise the number of open files");
    }
    let descriptors = descriptors();
    if descriptors < FEW_DESCRIPTORS {
        warn!(
            descriptors,
            advised = FEW_DESCRIPTORS,
            "few files may be open at once: raise `ulimit -n` or LimitNOFILE"
        );
    }
}

/// How many descriptors this process may have.
fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(MOST_DESCRIPTORS)
}

/// How many connections a listener takes at once: a share of the descriptors, up to a number that
/// is enough for any use.
fn share(divisor: u64, enough: u64) -> usize {
    usize::try_from((descriptors() / divisor).clamp(4, enough)).unwrap_or(4)
}

/// How many callers the API takes at once, on each of its listeners: an eighth of the descriptors.
pub(crate) fn most_callers() -> usize {
    share(8, 512)
}

/// How many readers HTTP takes at once: probes and Prometheus are few.
pub(crate) fn most_readers() -> usize {
    share(32, 64)
}

/// A socket that takes connections.
pub(crate) trait Accept: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Takes the next connection.
    fn take(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn take(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn take(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// What is known of a connection that is open.
#[derive(Debug, Default)]
struct Life {
    /// Whether the other side has shown who it is.
    is_met: AtomicBool,
    /// When something moved last, in [`Open::steps`].
    moved: AtomicU64,
    cut: CancellationToken,
}

/// A listener's open connections.
#[derive(Debug, Default)]
struct Open {
    lives: Mutex<Vec<Arc<Life>>>,
    /// Rises with whatever moves on any connection: what moved last has the highest number.
    steps: AtomicU64,
}

impl Open {
    fn lives(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Life>>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, life: &Life) {
        life.moved.store(self.steps.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn cut_one(&self) {
        let lives = self.lives();
        let open = lives.iter().filter(|life| !life.cut.is_cancelled());
        let rank = |life: &&Arc<Life>| {
            (life.is_met.load(Ordering::Relaxed), life.moved.load(Ordering::Relaxed))
        };
        if let Some(life) = open.min_by_key(rank) {
            debug!("cuts a silent connection: a new one takes its place");
            life.cut.cancel();
        }
    }
}

/// A listener that has so many connections at once, and no more.
#[derive(Debug)]
pub(crate) struct Bounded<L> {
    pub(crate) listener: L,
    permits: Arc<Semaphore>,
    open: Arc<Open>,
    patience: Option<Duration>,
}

impl<L: Accept> Bounded<L> {
    /// With `most` connections at once. One on which nothing is answered for `patience` is cut,
    /// where that is given.
    pub(crate) fn new(listener: L, most: usize, patience: Option<Duration>) -> Self {
        Self {
            listener,
            permits: Arc::new(Semaphore::new(most.max(1))),
            open: Arc::default(),
            patience,
        }
    }

    /// Takes the next connection, however long that takes.
    pub(crate) async fn accept(&self) -> Guarded<L::Stream> {
        let stream = loop {
            match self.listener.take().await {
                Ok(stream) => break stream,
                // Gone before it was taken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(%error, "failed to take a connection");
                    sleep(AFTER_FAILURE).await;
                }
            }
        };
        let permit = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.open.cut_one();
                Arc::clone(&self.permits)
                    .acquire_owned()
                    .await
                    .expect("the semaphore is never closed")
            }
        };
        let life = Arc::new(Life::default());
        self.open.note(&life);
        self.open.lives().push(Arc::clone(&life));
        Guarded {
            cut: Box::pin(life.cut.clone().cancelled_owned()),
            late: self.patience.map(|patience| (patience, Box::pin(sleep(patience)))),
            stream,
            life,
            open: Arc::clone(&self.open),
            _permit: permit,
        }
    }

    /// Every connection, one after the other.
    pub(crate) fn incoming(self) -> impl Stream<Item = io::Result<Guarded<L::Stream>>>
    where
        L: Sync,
    {
        futures_util::stream::unfold(self, async |door| {
            let taken = door.accept().await;
            Some((Ok(taken), door))
        })
    }
}

/// A connection that ends when it is cut.
pub(crate) struct Guarded<S> {
    stream: S,
    life: Arc<Life>,
    open: Arc<Open>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// How long nothing may be answered, and until when that is.
    late: Option<(Duration, Pin<Box<Sleep>>)>,
    /// Given back with the connection's descriptor: after it, since members are dropped in their
    /// order.
    _permit: OwnedSemaphorePermit,
}

impl<S> Guarded<S> {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "others take its place"));
        }
        let is_late =
            self.late.as_mut().is_some_and(|(_, late)| late.as_mut().poll(context).is_ready());
        if is_late { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    fn answered(&mut self) {
        self.open.note(&self.life);
        if let Some((patience, late)) = &mut self.late {
            late.as_mut().reset(Instant::now() + *patience);
        }
    }
}

impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        self.open.lives().retain(|life| !Arc::ptr_eq(life, &self.life));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.open.note(&self.life);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.answered();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, parts))?;
        self.answered();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Connected> Connected for Guarded<S> {
    type ConnectInfo = S::ConnectInfo;

    /// The server asks for it once it serves the connection: after the handshake, where there is
    /// one.
    fn connect_info(&self) -> Self::ConnectInfo {
        self.life.is_met.store(true, Ordering::Relaxed);
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tonic::transport::server::Connected as _;

    use super::Bounded;

    async fn bounded(
        most: usize,
        patience: Option<Duration>,
    ) -> (Bounded<TcpListener>, std::net::SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let address = listener.local_addr().expect("an address");
        (Bounded::new(listener, most, patience), address)
    }

    #[tokio::test]
    async fn the_silent_make_room_and_the_known_are_kept_before_the_unknown() {
        let (door, address) = bounded(3, None).await;
        let mut clients = Vec::new();
        let mut taken = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.expect("connects"));
            taken.push(Some(door.accept().await));
        }
        // The first is known; the second, older than the third, has spoken since.
        let _ = taken[0].as_ref().expect("open").connect_info();
        clients[1].write_all(b"x").await.expect("writes");
        taken[1].as_mut().expect("open").read_u8().await.expect("it is read");
        for expected in [2, 1, 0] {
            let _client = TcpStream::connect(address).await.expect("connects");
            let mut cut = taken[expected].take().expect("open");
            let (newest, ()) = tokio::join!(door.accept(), async {
                assert!(cut.read_u8().await.is_err(), "{expected} is cut");
                drop(cut);
            });
            let _ = newest.connect_info();
            // Kept open, and known, and the last that something moved on.
            std::mem::forget(newest);
        }
    }

    #[tokio::test]
    async fn what_is_never_answered_is_cut_in_time_however_it_drips() {
        let (door, address) = bounded(3, Some(Duration::from_millis(400))).await;
        let mut client = TcpStream::connect(address).await.expect("connects");
        let mut taken = door.accept().await;
        let drip = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if client.write_all(b"x").await.is_err() {
                    return;
                }
            }
        };
        let read = async {
            let began = tokio::time::Instant::now();
            while taken.read_u8().await.is_ok() {}
            began.elapsed()
        };
        let took = tokio::select! { took = read => took, () = drip => panic!("the server's side \
        ends first") };
        assert!(took >= Duration::from_millis(400), "{took:?}");
    }
}
