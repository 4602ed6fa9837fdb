//! What a request whose time is over is told, and the ids that requests get.

use super::*;

#[test]
fn only_who_sent_a_command_is_told_that_it_may_have_been_kept() {
    let second = Duration::from_secs(1);
    let clock = ConnectionClock::new(second, second);
    let now = Instant::now();
    clock.begin_request(now);
    assert!(overdue(&clock, MethodLabel::Get).is_none());
    assert!(clock.expire(now + second));
    for (method, is_command) in [
        (MethodLabel::Get, false),
        (MethodLabel::Head, false),
        (MethodLabel::Post, true),
        (MethodLabel::Delete, true),
    ] {
        let problem = overdue(&clock, method).expect("the time is over");
        assert_eq!(problem.kind(), ProblemKind::Timeout);
        let mut json = Vec::new();
        problem.write_json("", "", &mut json);
        let told = String::from_utf8_lossy(&json);
        assert_eq!(told.contains("command"), is_command, "{told}");
    }
}
