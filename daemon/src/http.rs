//! Health and metrics over HTTP, for probes and Prometheus: what may be read by whoever is on this
//! machine, and nothing that acts.
//!
//! It has no TLS and asks nobody who they are, so that it listens on loopback alone and tells
//! neither tokens nor addresses.

use std::fmt::Write as _;
use std::future::IntoFuture as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemas::fault::{Fault, FaultCode};
use schemas::phase::Phase;
use schemas::status::MigrationStatus;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::connections::{Bounded, Guarded, most_readers};
use crate::engine::copy::autoscale::Widths;
use crate::open_runs::Engines;
use crate::registry::Registry;
use crate::status::observed;

/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How long a reader may take to send a request, and to take its answer: all of it is a few
/// kilobytes, of this machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A listener that takes connections, and does not answer yet.
#[derive(Debug)]
pub(crate) struct Http(Bounded<TcpListener>);

impl axum::serve::Listener for Bounded<TcpListener> {
    type Io = Guarded<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Nobody is told apart here: the address is of no use.
        (Self::accept(self).await, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[derive(Clone)]
struct Sources {
    registry: Registry,
    engines: Arc<Engines>,
}

impl Http {
    /// Listens on a loopback address.
    pub(crate) async fn listen(address: SocketAddr) -> Result<Self, Fault> {
        if !address.ip().is_loopback() {
            let message = format!(
                "--http {address} can be reached from other machines, and HTTP is served without \
                 TLS"
            );
            let remedy = "listen on 127.0.0.1 or [::1], and put a proxy with TLS before it where \
                 others need it";
            return Err(Fault::new(FaultCode::InvalidConfiguration, message).with_remedy(remedy));
        }
        let bound = TcpListener::bind(address).await;
        bound.map(|listener| Self(Bounded::new(listener, most_readers(), Some(PATIENCE)))).map_err(
            |error| {
                Fault::new(
                    FaultCode::InvalidConfiguration,
                    format!("failed to listen for HTTP on {address}: {error}"),
                )
                .with_remedy("name an address and a port of this machine that are free")
            },
        )
    }

    /// Where it listens: the port that the system chose, where 0 was asked for.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.listener.local_addr()
    }

    /// Answers until it is stopped.
    pub(crate) async fn serve(
        self,
        registry: Registry,
        engines: Arc<Engines>,
        until: CancellationToken,
    ) -> std::io::Result<()> {
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/metrics", get(metrics))
            .with_state(Sources { registry, engines });
        // A reader that lingers holds up no end.
        tokio::select! {
            served = axum::serve(self.0, router).into_future() => served,
            () = until.cancelled() => Ok(()),
        }
    }
}

async fn metrics(State(sources): State<Sources>) -> Response {
    match sources.registry.observe(None, None).await {
        Ok(views) => {
            let seen = views.into_iter().map(|view| {
                let progress = sources.engines.progress(&view.record.run.id);
                let workers = progress.as_ref().and_then(|progress| progress.copy_workers);
                Seen { status: observed(view, progress).status, workers }
            });
            ([(header::CONTENT_TYPE, METRICS)], text(&seen.collect::<Vec<_>>())).into_response()
        }
        // It stops.
        Err(fault) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", fault.message)).into_response()
        }
    }
}

/// What is known of a migration.
struct Seen {
    status: MigrationStatus,
    workers: Option<Widths>,
}

/// A figure of each migration, or none where it is not known.
type Figure = fn(&Seen) -> Option<f64>;

/// The figures by name and meaning.
const FIGURES: [(&str, &str, Figure); 11] = [
    (
        "lag_seconds",
        "Seconds between the newest operation on the source and the newest one applied.",
        |one| one.status.lag_seconds,
    ),
    ("ready", "Whether it may be cut over.", |one| {
        Some(f64::from(u8::from(one.status.ready.value)))
    }),
    ("window_remaining_seconds", "Seconds until the cutover window closes.", |one| {
        one.status.window.remaining_seconds
    }),
    ("copy_bytes", "Bytes of documents copied.", |one| Some(one.status.copy.bytes_copied as f64)),
    ("copy_bytes_total", "Bytes of documents to copy.", |one| {
        Some(one.status.copy.bytes_total as f64)
    }),
    ("events_applied", "Changes of the source applied by this process.", |one| {
        Some(one.status.tail.events_applied as f64)
    }),
    ("mismatches", "Documents found to differ.", |one| {
        Some(one.status.verification.mismatches as f64)
    }),
    ("destination_writable", "Whether the destination is open.", |one| {
        Some(f64::from(u8::from(one.status.destination_writable)))
    }),
    ("copy_readers", "Readers of the copy at once, at most.", |one| {
        one.workers.map(|workers| workers.readers as f64)
    }),
    ("copy_writers", "Writers of the copy at once, at most.", |one| {
        one.workers.map(|workers| workers.writers as f64)
    }),
    ("in_trouble", "Whether an error is told.", |one| {
        Some(f64::from(u8::from(one.status.error.is_some())))
    }),
];

/// Statuses in Prometheus' text format. Names of workspaces and migrations need no escapes.
fn text(all: &[Seen]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    for (name, meaning, figure) in FIGURES {
        let _ = writeln!(out, "# HELP cutover_{name} {meaning}\n# TYPE cutover_{name} gauge");
        for one in all {
            if let Some(figure) = figure(one) {
                let _ = writeln!(out, "cutover_{name}{{{}}} {figure}", labels(&one.status));
            }
        }
    }
    let _ = writeln!(
        out,
        "# HELP cutover_phase 1 for the phase that it is in.\n# TYPE cutover_phase gauge"
    );
    for Seen { status: one, .. } in all {
        for phase in Phase::ALL {
            let _ = writeln!(
                out,
                "cutover_phase{{{},phase=\"{phase}\"}} {}",
                labels(one),
                u8::from(one.phase == phase)
            );
        }
    }
    out
}

fn labels(one: &MigrationStatus) -> String {
    format!("workspace=\"{}\",migration=\"{}\"", one.workspace, one.name)
}
