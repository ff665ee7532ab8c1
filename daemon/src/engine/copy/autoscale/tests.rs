//! What the climber makes of servers that are slow in one way or another.

use std::time::Duration;

use super::{Climber, FEWEST, Step, Stretch, Widths};

/// Servers whose speed is that of so many workers, up to what they can do, which more workers than
/// they have use for may lower.
#[derive(Clone, Copy)]
struct Servers {
    /// What one reader gets, all readers at most, and what each writer writes, all at most.
    reader: f64,
    source: f64,
    writer: f64,
    destination: f64,
    /// What each writer beyond those that it takes costs, as a share of the whole.
    contention: f64,
    /// What a measurement may be off by, as a share, up or down.
    noise: f64,
}

/// Never slow.
const QUICK: Servers = Servers {
    reader: 1e3,
    source: 1e6,
    writer: 1e3,
    destination: 1e6,
    contention: 0.0,
    noise: 0.0,
};

impl Servers {
    fn reads(&self, readers: usize) -> f64 {
        (readers as f64 * self.reader).min(self.source)
    }

    fn writes(&self, writers: usize) -> f64 {
        let useful = self.destination / self.writer;
        let beyond = (writers as f64 - useful).max(0.0);
        (writers as f64 * self.writer).min(self.destination)
            * (1.0 - self.contention * beyond).max(0.1)
    }

    fn speed(&self, widths: Widths) -> f64 {
        self.reads(widths.readers).min(self.writes(widths.writers))
    }

    fn stretch(&self, widths: Widths, off: f64) -> Stretch {
        let (speed, second) = (self.speed(widths), Duration::from_secs(1));
        Stretch {
            elapsed: second,
            work: (speed * (1.0 + self.noise * off) * 1e3) as u64,
            // Who is not what the copy waits for waits for the other.
            reading: second.mul_f64(widths.readers as f64 * speed / self.reads(widths.readers)),
            writing: second.mul_f64(widths.writers as f64 * speed / self.writes(widths.writers)),
        }
    }
}

fn both(width: usize) -> Widths {
    Widths { readers: width, writers: width }
}

/// Numbers between -1 and 1, the same each time.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1_u32 << 30) - 1.0
    }
}

/// Runs it for so many stretches; gives the mean speed of the last half, as a share of the best
/// there is.
fn run(climber: &mut Climber, servers: &Servers, stretches: usize, seed: u64) -> f64 {
    let mut off = noise(seed);
    let speeds: Vec<f64> = (0..stretches)
        .map(|_| {
            let widths = climber.now();
            assert!(
                widths.readers <= climber.most.readers && widths.writers <= climber.most.writers,
                "{widths:?}"
            );
            climber.step(&servers.stretch(widths, off()));
            servers.speed(widths)
        })
        .collect();
    let widths = (1..=climber.most.readers).flat_map(|readers| {
        (1..=climber.most.writers).map(move |writers| Widths { readers, writers })
    });
    let best = widths.map(|widths| servers.speed(widths)).fold(0.0, f64::max);
    let late = &speeds[stretches / 2..];
    late.iter().sum::<f64>() / late.len() as f64 / best
}

#[test]
fn what_is_slow_gets_more_and_what_is_not_does_not() {
    let far = |reader, writer| Servers { reader, writer, ..QUICK };
    let cases = [
        ("a far source", far(1.0, 10.0), Widths { readers: 16, writers: 4 }),
        ("a far destination", far(10.0, 1.0), Widths { readers: 4, writers: 16 }),
        ("both far", far(1.0, 1.0), both(16)),
        // A third more than 9 would gain nothing, and a third less loses.
        (
            "a source that gives no more than to nine",
            Servers { source: 9.0, ..far(1.0, 10.0) },
            Widths { readers: 9, writers: 4 },
        ),
    ];
    for (name, servers, wanted) in cases {
        let mut climber = Climber::new(both(4), both(16));
        let share = run(&mut climber, &servers, 300, 1);
        assert!(share > 0.9, "{name}: {share} with {:?}", climber.now());
        // Where it is by now may be a trial, which ends within two stretches.
        let seen: Vec<Widths> = (0..8)
            .map(|_| {
                climber.step(&servers.stretch(climber.now(), 0.0));
                climber.now()
            })
            .collect();
        assert!(seen.contains(&wanted), "{name}: {seen:?}");
    }
}

#[test]
fn a_destination_that_has_no_more_to_give_gets_fewer_and_is_no_slower() {
    let full = Servers { writer: 2.0, destination: 4.0, ..QUICK };
    let mut climber = Climber::new(both(8), both(16));
    assert!(run(&mut climber, &full, 200, 1) > 0.97);
    assert!(climber.now().writers < 8, "{:?}", climber.now());
    // Where they are in each other's way it is faster with fewer.
    let crowded = Servers { contention: 0.04, ..full };
    let mut climber = Climber::new(both(8), both(16));
    assert!(run(&mut climber, &crowded, 200, 1) > 0.93, "{:?}", climber.now());
    assert!(climber.now().writers <= 4, "{:?}", climber.now());
}

#[test]
fn trials_cost_little_where_they_are_for_nothing() {
    // A copy of 20 stretches loses nothing by trying more, and does not try fewer before a rest.
    let full = Servers { writer: 2.0, destination: 4.0, ..QUICK };
    let mut climber = Climber::new(both(4), both(16));
    let mut trials = 0;
    for _ in 0..8 {
        let widths = climber.now();
        assert!(widths.writers >= 4, "{widths:?}");
        trials += usize::from(matches!(climber.step(&full.stretch(widths, 0.0)), Step::Try(_)));
    }
    assert_eq!((trials, climber.now()), (1, both(4)));
}

#[test]
fn noise_leads_nowhere_bad() {
    for seed in 0..50 {
        let far = Servers { reader: 1.0, noise: 0.08, ..QUICK };
        let mut climber = Climber::new(both(4), both(16));
        let share = run(&mut climber, &far, 300, seed);
        assert!(share > 0.85, "far, seed {seed}: {share} with {:?}", climber.now());
        let full =
            Servers { writer: 2.0, destination: 6.0, contention: 0.01, noise: 0.08, ..QUICK };
        let mut climber = Climber::new(both(4), both(16));
        let share = run(&mut climber, &full, 300, seed);
        assert!(share > 0.85, "full, seed {seed}: {share} with {:?}", climber.now());
    }
}

#[test]
fn servers_that_change_are_tried_anew() {
    let far = Servers { writer: 1.0, ..QUICK };
    let near = Servers { writer: 8.0, destination: 16.0, contention: 0.03, ..QUICK };
    let mut climber = Climber::new(both(4), both(16));
    assert!(run(&mut climber, &far, 100, 1) > 0.9);
    // Twice as fast as before with sixteen, and more so with fewer.
    assert!(run(&mut climber, &near, 400, 1) > 0.9, "{:?}", climber.now());
    assert!(climber.now().writers < 8, "{:?}", climber.now());
    assert!(run(&mut climber, &far, 400, 1) > 0.85, "{:?}", climber.now());
}

#[test]
fn bounds_hold() {
    let far = Servers { reader: 1.0, writer: 1.0, ..QUICK };
    for most in [1, 2, 5] {
        let mut climber = Climber::new(both(8), both(most));
        assert_eq!(climber.now(), both(most));
        run(&mut climber, &far, 100, 1);
    }
    // However little many of them bring, some stay.
    let full = Servers { writer: 100.0, destination: 4.0, ..QUICK };
    let mut climber = Climber::new(both(8), both(16));
    for _ in 0..300 {
        climber.step(&full.stretch(climber.now(), 0.0));
        assert!(climber.now().writers >= FEWEST, "{:?}", climber.now());
    }
}

#[test]
fn nothing_is_tried_while_something_else_holds_it_back() {
    let mut climber = Climber::new(both(4), both(16));
    let idle = Stretch {
        reading: Duration::from_millis(500),
        writing: Duration::from_millis(500),
        ..QUICK.stretch(both(4), 0.0)
    };
    for _ in 0..50 {
        assert_eq!((climber.step(&idle), climber.now()), (Step::Same, both(4)));
        assert_eq!((climber.step(&Stretch::default()), climber.now()), (Step::Same, both(4)));
    }
    let far = Servers { reader: 1.0, ..QUICK };
    while !matches!(climber.step(&far.stretch(climber.now(), 0.0)), Step::Try(_)) {}
    assert_eq!((climber.pass_over(), climber.now()), (Step::Back, both(4)));
}
