//! Charts: numbers to SVG, purely. Each says in words what it shows, stands beside a table with the same numbers, and tells its
//! marks apart by shape as well as by colour.

use forge_api::{Attempt, LoadSample, TaskOutcome, TaskState, Timestamp};
use maud::{Markup, html};

use super::parts;

/// The size of a chart in its own units; the page scales it.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 170.0;

/// Room for the scale on the left, and for the times below.
const LEFT: f64 = 52.0;
const BELOW: f64 = 22.0;
const ABOVE: f64 = 12.0;

/// How many points a line has at most: samples between two of them become their largest.
const POINTS_MAX: i64 = 180;

/// A chart of bars has room for at least so many.
const PLACES_MIN: usize = 20;

/// A line ends where no sample came for so many of its steps: the daemon was away.
const GAP_STEPS: i64 = 2;

/// How a task's end is drawn.
fn outcome_class(state: TaskState) -> &'static str {
    match state {
        TaskState::Succeeded => "bar good",
        TaskState::Failed | TaskState::TimedOut | TaskState::Lost => "bar bad",
        TaskState::Queued
        | TaskState::Assigned
        | TaskState::Running
        | TaskState::AwaitingApproval
        | TaskState::Canceled
        | TaskState::Expired
        | TaskState::Skipped => "bar",
    }
}

/// The least of 1, 2, 5 times a power of ten that is no less than `largest`.
fn scale_top(largest: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        for step in [1, 2, 5] {
            let top = power.saturating_mul(step);
            if top >= largest {
                return top;
            }
        }
        power = power.saturating_mul(10);
    }
}

/// The least whole unit of time, of those that people read, that is no less than `largest` milliseconds.
fn time_top(largest: u64) -> u64 {
    const STEPS_S: [u64; 17] =
        [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400];
    STEPS_S
        .into_iter()
        .map(|step| step * 1_000)
        .find(|top| *top >= largest)
        .unwrap_or_else(|| scale_top(largest.div_ceil(86_400_000)).saturating_mul(86_400_000))
}

#[expect(clippy::cast_precision_loss, reason = "a chart has some hundred pixels")]
fn float(number: u64) -> f64 {
    number as f64
}

/// How far up `value` stands below `top`.
fn height_of(value: u64, top: u64) -> f64 {
    if top == 0 { 0.0 } else { float(value.min(top)) / float(top) * (HEIGHT - ABOVE - BELOW) }
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

/// The frame: the scale's lines with its words.
fn scale(top: u64, words: impl Fn(u64) -> String) -> Markup {
    html! {
        @for part in [0, 1, 2] {
            @let y = HEIGHT - BELOW - height_of(part, 2);
            line.axis x1=(number(LEFT)) x2=(number(WIDTH)) y1=(number(y)) y2=(number(y)) {}
            @if part == 0 || (top * part).is_multiple_of(2) {
                text x=(number(LEFT - 6.0)) y=(number(y + 4.0)) text-anchor="end" { (words(top * part / 2)) }
            }
        }
    }
}

/// How long a template's newest tasks took and how they ended; the oldest stands on the left.
pub(super) fn durations(id: &str, newest_first: &[TaskOutcome]) -> Markup {
    let tasks: Vec<&TaskOutcome> = newest_first.iter().rev().collect();
    let longest = tasks.iter().filter_map(|task| task.duration_ms).max().unwrap_or_default();
    let top = time_top(longest);
    // Few tasks stand at the newest end.
    let places = tasks.len().max(PLACES_MIN);
    let step = (WIDTH - LEFT) / float(places as u64);
    let left_out = places - tasks.len();
    let failed = tasks.iter().filter(|task| outcome_class(task.state) == "bar bad").count();
    let about = format!(
        "{} finished tasks, the oldest on the left: {failed} failed, the longest took {}.",
        tasks.len(),
        parts::span(longest)
    );
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby={ (id) "-title " (id) "-about" } {
            title id={ (id) "-title" } { "Durations and outcomes" }
            desc id={ (id) "-about" } { (about) }
            (scale(top, parts::span))
            @for (index, task) in tasks.iter().enumerate() {
                @let height = height_of(task.duration_ms.unwrap_or_default(), top).max(3.0);
                @let x = LEFT + step * (float((left_out + index) as u64) + 0.12);
                @let y = HEIGHT - BELOW - height;
                @let width = step * 0.76;
                g data-tip=(tip(task)) {
                    rect class=(outcome_class(task.state)) x=(number(x)) y=(number(y)) width=(number(width)) height=(number(height)) rx="1.5" {}
                    @if task.state != TaskState::Succeeded {
                        // A cross on top of what did not end well: it is seen without colours.
                        text x=(number(x + width / 2.0)) y=(number((y - 3.0).max(9.0))) text-anchor="middle" {
                            @if outcome_class(task.state) == "bar bad" { "✕" } @else { "○" }
                        }
                    }
                }
            }
            text x=(number(LEFT)) y=(number(HEIGHT - 6.0)) { "older" }
            text x=(number(WIDTH)) y=(number(HEIGHT - 6.0)) text-anchor="end" { "newest" }
        }
    }
}

fn tip(task: &TaskOutcome) -> String {
    let took = task.duration_ms.map_or_else(|| "never started".to_owned(), parts::span);
    format!("#{} {}, {took}", task.number, task.state.as_str().replace('_', " "))
}

/// One point of a line: the largest of its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Point {
    step: i64,
    queued: u64,
    running: u64,
    slots: Option<u64>,
}

/// The samples of the `hours` before `now` in at most [`POINTS_MAX`] steps.
fn points(samples: &[LoadSample], now: Timestamp, hours: i64) -> Vec<Point> {
    let from = now.plus_millis(-hours * 3_600_000);
    let step_ms = (hours * 3_600_000 / POINTS_MAX).max(60_000);
    let mut points: Vec<Point> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.at >= from && sample.at <= now) {
        let step = sample.at.millis_after(from) / step_ms;
        let fresh = Point { step, queued: sample.queued, running: sample.running, slots: sample.slots };
        match points.last_mut().filter(|last| last.step == step) {
            Some(last) => {
                last.queued = last.queued.max(sample.queued);
                last.running = last.running.max(sample.running);
                last.slots = last.slots.max(sample.slots);
            }
            None => points.push(fresh),
        }
    }
    points
}

/// What a line's points draw, broken where the daemon was away or there is no number.
fn path(points: &[Point], steps: i64, top: u64, of: impl Fn(&Point) -> Option<u64>) -> String {
    let mut drawn = String::new();
    let mut before: Option<i64> = None;
    for point in points {
        let Some(value) = of(point) else {
            before = None;
            continue;
        };
        let x = LEFT + (WIDTH - LEFT) * float(point.step.unsigned_abs()) / float(steps.max(1).unsigned_abs());
        let y = HEIGHT - BELOW - height_of(value, top);
        let goes_on = before.is_some_and(|before| point.step - before <= GAP_STEPS);
        // A point alone is a short stroke.
        let word =
            if goes_on { format!("L{} {}", number(x), number(y)) } else { format!("M{} {}h1", number(x), number(y)) };
        drawn.push_str(&word);
        before = Some(point.step);
    }
    drawn
}

/// How long the queue was and how many tasks ran, over the last hours.
pub(super) fn load(id: &str, samples: &[LoadSample], now: Timestamp, hours: i64) -> Markup {
    let points = points(samples, now, hours);
    let steps = (hours * 3_600_000) / (hours * 3_600_000 / POINTS_MAX).max(60_000);
    let largest = points.iter().map(|point| point.queued.max(point.running).max(point.slots.unwrap_or_default())).max();
    let top = scale_top(largest.unwrap_or_default().max(2));
    let most = |of: fn(&Point) -> u64| points.iter().map(of).max().unwrap_or_default();
    let about = format!(
        "Over the last {hours} hours at most {} tasks waited and {} ran at a time.",
        most(|point| point.queued),
        most(|point| point.running)
    );
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby={ (id) "-title " (id) "-about" } {
            title id={ (id) "-title" } { "Queue and slots" }
            desc id={ (id) "-about" } { (about) }
            (scale(top, |count| count.to_string()))
            path.line.three d=(path(&points, steps, top, |point| point.slots)) {}
            path.line.one d=(path(&points, steps, top, |point| Some(point.running))) {}
            path.line.two d=(path(&points, steps, top, |point| Some(point.queued))) {}
            text x=(number(LEFT)) y=(number(HEIGHT - 6.0)) { (hours) " h ago" }
            text x=(number(WIDTH)) y=(number(HEIGHT - 6.0)) text-anchor="end" { "now" }
        }
        ul.legend {
            @for (class, name) in [("one", "running"), ("two", "waiting"), ("three", "slots of online runners")] {
                li { svg.chart viewBox="0 0 22 10" aria-hidden="true" { line class={ "line " (class) } x1="0" x2="22" y1="5" y2="5" {} } (name) }
            }
        }
    }
}

/// The attempts of a task on one line of time: hollow while it waited for the runner to begin, full while it ran.
pub(super) fn timeline(id: &str, attempts: &[Attempt], created: Timestamp, now: Timestamp) -> Markup {
    const ROW: f64 = 26.0;
    let end = attempts.iter().map(|attempt| attempt.closed_at.unwrap_or(now)).max().unwrap_or(now);
    let whole = end.millis_since(created).max(1);
    let at =
        |moment: Timestamp| LEFT + (WIDTH - LEFT - 4.0) * float(moment.millis_since(created).min(whole)) / float(whole);
    let height = ROW * float(attempts.len() as u64) + BELOW;
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (number(height)) } role="img" aria-labelledby={ (id) "-title " (id) "-about" } {
            title id={ (id) "-title" } { "Timeline of attempts" }
            desc id={ (id) "-about" } {
                (attempts.len()) " attempts within " (parts::span(whole)) ". The table below has their times."
            }
            @for (index, attempt) in attempts.iter().enumerate() {
                @let y = ROW * float(index as u64) + 4.0;
                @let begins = attempt.started_at.unwrap_or_else(|| attempt.closed_at.unwrap_or(now));
                @let ends = attempt.closed_at.unwrap_or(now);
                text x=(number(LEFT - 8.0)) y=(number(y + 13.0)) text-anchor="end" { "#" (attempt.number) }
                g data-tip={ "attempt " (attempt.number) " on " (attempt.runner) ", " (parts::span(ends.millis_since(attempt.assigned_at))) } {
                    rect class="bar waits" x=(number(at(attempt.assigned_at))) y=(number(y)) rx="2" height="18"
                        width=(number((at(begins) - at(attempt.assigned_at)).max(2.0))) {}
                    @if attempt.started_at.is_some() {
                        rect class={ "bar " (attempt_class(attempt)) } x=(number(at(begins))) y=(number(y)) rx="2" height="18"
                            width=(number((at(ends) - at(begins)).max(3.0))) {}
                    }
                }
            }
            text x=(number(LEFT)) y=(number(height - 6.0)) { "created" }
            text x=(number(WIDTH - 4.0)) y=(number(height - 6.0)) text-anchor="end" { (parts::span(whole)) }
        }
    }
}

fn attempt_class(attempt: &Attempt) -> &'static str {
    use forge_api::AttemptOutcome;
    match attempt.outcome {
        None if attempt.closed_at.is_none() => "busy",
        None => "bad",
        Some(AttemptOutcome::Succeeded | AttemptOutcome::AwaitsApproval) => "good",
        Some(AttemptOutcome::Failed | AttemptOutcome::Retry | AttemptOutcome::TimedOut | AttemptOutcome::Lost) => "bad",
        Some(AttemptOutcome::Canceled) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(minute: i64, queued: u64) -> LoadSample {
        let at = Timestamp::from_unix_micros(0).plus_millis(minute * 60_000);
        LoadSample { at, queued, running: 1, slots: Some(4), runners_online: 1 }
    }

    #[test]
    fn scales_end_at_round_numbers() {
        for (largest, top) in [(0, 1), (1, 1), (3, 5), (11, 20), (501, 1_000)] {
            assert_eq!(scale_top(largest), top);
        }
        assert_eq!((time_top(900), time_top(61_000), time_top(90_000_000)), (1_000, 120_000, 172_800_000));
    }

    #[test]
    fn a_day_of_samples_becomes_few_points_that_keep_their_peaks() {
        let now = Timestamp::from_unix_micros(0).plus_millis(24 * 3_600_000);
        let samples: Vec<LoadSample> = (0..1_440).map(|minute| sample(minute, u64::from(minute == 777) * 50)).collect();
        let points = points(&samples, now, 24);
        assert_eq!(points.len(), 180);
        assert_eq!(points.iter().map(|point| point.queued).max(), Some(50));
    }

    #[test]
    fn a_line_breaks_where_the_daemon_was_away() {
        let point = |step| Point { step, queued: 1, running: 1, slots: None };
        let drawn = path(&[point(0), point(1), point(9), point(10)], 180, 5, |point| Some(point.queued));
        assert_eq!((drawn.matches('M').count(), drawn.matches('L').count()), (2, 2), "{drawn}");
        assert_eq!(path(&[point(0)], 180, 5, |point| point.slots), "");
    }

    #[test]
    fn bars_say_how_each_task_ended_without_colour() {
        let outcome = |number, state| TaskOutcome {
            number,
            state,
            duration_ms: Some(1_000 * number),
            finished_at: Timestamp::from_unix_micros(0),
        };
        let drawn = durations("d", &[outcome(2, TaskState::Failed), outcome(1, TaskState::Succeeded)]).into_string();
        assert!(drawn.contains("#2 failed, 2 s") && drawn.matches('✕').count() == 1, "{drawn}");
        assert!(drawn.contains("2 finished tasks") && drawn.contains("1 failed"), "{drawn}");
    }
}
