use super::*;
use crate::service::{Now, Service};
use crate::session::Session;
use crate::store::{Limits, Store};

const ROOM: usize = 64 << 20;

/// A client of its own store.
struct Redis {
    service: Service,
    session: Session,
}

impl Redis {
    fn new() -> Self {
        Self::with_limits(Limits { memory_bytes: 1 << 30, record_bytes: 1 << 30 })
    }

    fn with_limits(limits: Limits) -> Self {
        let mut redis = Self { service: Service::new(Store::new(limits), None), session: Session::new(7) };
        redis.at(1_000_000);
        redis
    }

    /// It is now so many milliseconds.
    fn at(&mut self, ms: u64) {
        self.service.set_now(Now { unix_us: ms * 1000, up_us: ms * 1000 });
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes())
    }

    fn send(&mut self, bytes: &[u8]) -> String {
        self.session.receive(bytes, ROOM, &mut self.service);
        let output = self.session.output().to_vec();
        self.session.take(output.len());
        String::from_utf8_lossy(&output).replace("\r\n", " ").trim_end().to_string()
    }

    /// Each line and what comes back, line breaks as spaces.
    fn says(&mut self, cases: &[(&str, &str)]) {
        for (line, reply) in cases {
            assert_eq!(self.ask(line), *reply, "{line}");
        }
    }
}

#[test]
fn commands_are_sorted() {
    assert!(COMMANDS.is_sorted_by_key(|spec| spec.word));
    for spec in &COMMANDS {
        assert_eq!(find(spec.name.to_ascii_lowercase().as_bytes()).map(|found| found.name), Some(spec.name));
    }
}

#[test]
fn debug() {
    let mut redis = Redis::new();
    let refused =
        "-ERR DEBUG command not allowed. Put the word debug on the guest's command line to allow it.";
    redis.says(&[("debug hang", refused), ("DEBUG sleep 1", refused), ("ping", "+PONG")]);
    redis.service.debug = true;
    redis.says(&[
        ("debug", "-ERR wrong number of arguments for 'debug' command"),
        ("debug hang now", "-ERR wrong number of arguments for 'debug' command"),
        ("debug segfault", "-ERR unknown subcommand 'segfault'. Try DEBUG HELP."),
    ]);
}

#[test]
fn strings() {
    Redis::new().says(&[
        ("get a", "$-1"),
        ("set a 1", "+OK"),
        ("GET a", "$1 1"),
        ("getset a 2", "$1 1"),
        ("setnx a 3", ":0"),
        ("setnx b 3", ":1"),
        ("mget a nothing b", "*3 $1 2 $-1 $1 3"),
        ("mset a 1 b 2 c 3", "+OK"),
        ("mset a", "-ERR wrong number of arguments for 'mset' command"),
        ("mset a 1 b", "-ERR wrong number of arguments for 'mset' command"),
        ("append c 45", ":3"),
        ("append d xy", ":2"),
        ("strlen c", ":3"),
        ("strlen nothing", ":0"),
        ("getdel c", "$3 345"),
        ("exists a b c a", ":3"),
        ("del a b c", ":2"),
        ("unlink d", ":1"),
        ("type d", "+none"),
        ("dbsize", ":0"),
    ]);
}

#[test]
fn set_has_options() {
    let mut redis = Redis::new();
    redis.says(&[
        ("set a 1 xx", "$-1"),
        ("set a 1 nx get", "$-1"),
        ("set a 2 nx", "$-1"),
        ("set a 2 nx get", "$1 1"),
        ("set a 3 get", "$1 1"),
        ("set a 4 xx px 1500", "+OK"),
        ("pttl a", ":1500"),
        ("ttl a", ":2"),
        ("set a 5 keepttl", "+OK"),
        ("pttl a", ":1500"),
        ("set a 6", "+OK"),
        ("pttl a", ":-1"),
        ("set a 7 exat 1001", "+OK"),
        ("pttl a", ":1000"),
        ("set a 8 pxat 1", "+OK"),
        ("get a", "$-1"),
        ("set a 1 nx xx", "-ERR syntax error"),
        ("set a 1 ex 1 px 1", "-ERR syntax error"),
        ("set a 1 ex 1 keepttl", "-ERR syntax error"),
        ("set a 1 keepttl ex 1", "-ERR syntax error"),
        ("set a 1 ex", "-ERR syntax error"),
        ("set a 1 strange", "-ERR syntax error"),
        ("set a 1 ex 0", "-ERR invalid expire time in 'set' command"),
        ("set a 1 ex 9223372036854775807", "-ERR invalid expire time in 'set' command"),
        ("set a 1 ex x", "-ERR value is not an integer or out of range"),
        ("setex a 0 1", "-ERR invalid expire time in 'setex' command"),
        ("setex a 10 v", "+OK"),
        ("ttl a", ":10"),
        ("psetex a 10 v", "+OK"),
        ("pttl a", ":10"),
    ]);
}

#[test]
fn numbers() {
    Redis::new().says(&[
        ("incr n", ":1"),
        ("incrby n 41", ":42"),
        ("decr n", ":41"),
        ("decrby n 50", ":-9"),
        ("get n", "$2 -9"),
        ("set n 9223372036854775807", "+OK"),
        ("incr n", "-ERR increment or decrement would overflow"),
        ("decrby n -9223372036854775808", "-ERR decrement would overflow"),
        ("incrby n 1.5", "-ERR value is not an integer or out of range"),
        ("set n abc", "+OK"),
        ("incr n", "-ERR value is not an integer or out of range"),
        ("set n 5 ex 100", "+OK"),
        ("incr n", ":6"),
        ("ttl n", ":100"),
    ]);
}

#[test]
fn keys_expire() {
    let mut redis = Redis::new();
    redis.says(&[
        ("expire a 10", ":0"),
        ("ttl a", ":-2"),
        ("set a 1", "+OK"),
        ("ttl a", ":-1"),
        ("expire a 10", ":1"),
        ("expire a 5 gt", ":0"),
        ("expire a 20 gt", ":1"),
        ("expire a 20 nx", ":0"),
        ("pexpire a 2000 lt", ":1"),
        ("expire a 1 lt gt", "-ERR GT and LT options at the same time are not compatible"),
        ("expire a 1 nx xx", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
        ("expire a 1 when", "-ERR Unsupported option when"),
        ("set b 1", "+OK"),
        ("expire b 9 xx", ":0"),
        ("expire b 9 lt", ":1"),
        ("persist b", ":1"),
        ("persist b", ":0"),
        ("expire a 9223372036854775807", "-ERR invalid expire time in 'expire' command"),
    ]);
    redis.at(1_001_999);
    redis.says(&[("exists a", ":1"), ("pttl a", ":1")]);
    redis.at(1_002_000);
    redis.says(&[("exists a", ":0"), ("dbsize", ":1"), ("expire b -1", ":1"), ("dbsize", ":0")]);
    assert_eq!(redis.service.counters.expired, 1);
}

#[test]
fn keys_are_listed() {
    let mut redis = Redis::new();
    redis.ask("mset one 1 two 2 three 3");
    assert_eq!(redis.ask("keys t*").len(), "*2 $3 two $5 three".len());
    redis.says(&[
        ("keys x*", "*0"),
        ("scan 0 match one count 100", "*2 $1 0 *1 $3 one"),
        ("scan 0 count 100 type hash", "*2 $1 0 *0"),
        ("scan x", "-ERR invalid cursor"),
        ("scan 0 count 0", "-ERR syntax error"),
        ("scan 0 count", "-ERR syntax error"),
        ("flushall sync", "+OK"),
        ("flushdb now", "-ERR syntax error"),
        ("keys *", "*0"),
    ]);
}

#[test]
fn a_scan_in_steps_finds_all() {
    let mut redis = Redis::new();
    (0..100).for_each(|index| assert_eq!(redis.ask(&format!("set k{index} v")), "+OK"));
    let (mut cursor, mut found) = ("0".to_string(), 0);
    loop {
        let reply = redis.ask(&format!("scan {cursor} count 9"));
        let words: Vec<_> = reply.split(' ').collect();
        cursor = words[2].to_string();
        found += words[3][1..].parse::<usize>().unwrap();
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found, 100);
}

#[test]
fn connection_and_server() {
    let mut redis = Redis::new();
    redis.says(&[
        ("ping", "+PONG"),
        ("ping hello", "$5 hello"),
        ("ping a b", "-ERR wrong number of arguments for 'ping' command"),
        ("echo x", "$1 x"),
        ("select 0", "+OK"),
        ("select 1", "-ERR DB index is out of range"),
        ("select x", "-ERR value is not an integer or out of range"),
        ("time", "*2 $4 1000 $1 0"),
        ("client id", ":7"),
        ("client getname", "$-1"),
        ("client setname me", "+OK"),
        ("client getname", "$2 me"),
        ("client setinfo lib-name x", "+OK"),
        ("client kill x", "-ERR unknown subcommand 'kill'. Try CLIENT HELP."),
        ("hello 3", "-NOPROTO unsupported protocol version"),
        ("config get save", "*2 $4 save $0"),
        ("config get appendonly", "*2 $10 appendonly $2 no"),
        ("command count", ":43"),
        ("command docs", "*0"),
        ("command info get nothing", "*2 *6 $3 get :2 *1 +readonly :1 :1 :1 *-1"),
        ("save", "+OK"),
        ("bgsave", "+Background saving started"),
        ("hset a b c", "-ERR unknown command 'hset', with args beginning with: 'a' 'b' 'c'"),
    ]);
    assert!(redis.ask("hello 2").starts_with("*14 $6 server $5 redis $7 version"));
    assert!(redis.ask("info server").contains("redis_version:"));
    assert!(!redis.ask("info server").contains("# Clients"));
    assert!(redis.ask("info").contains("# Clients"));
    assert_eq!(redis.ask("quit"), "+OK");
    assert!(redis.session.is_closing());
}

#[test]
fn values_are_any_bytes() {
    let mut redis = Redis::new();
    assert_eq!(redis.send(b"*3\r\n$3\r\nSET\r\n$2\r\n\0\r\r\n$3\r\n\n\xff\0\r\n"), "+OK");
    redis.session.receive(b"*2\r\n$3\r\nGET\r\n$2\r\n\0\r\r\n", ROOM, &mut redis.service);
    assert_eq!(redis.session.output(), b"$3\r\n\n\xff\0\r\n");
}

#[test]
fn limits_are_told() {
    let mut redis = Redis::with_limits(Limits { memory_bytes: 2000, record_bytes: 1 << 30 });
    let big = "x".repeat(1800);
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.";
    redis.says(&[
        (&format!("set a {big}"), oom),
        (&format!("mset a 1 b {big}"), oom),
        ("exists a b", ":0"),
        (&format!("append a {big}"), oom),
        ("set a 1", "+OK"),
        (&format!("getset a {big}"), oom),
        ("get a", "$1 1"),
    ]);
    let mut redis = Redis::with_limits(Limits { memory_bytes: 1 << 30, record_bytes: 100 });
    redis.says(&[
        ("set a 1", "+OK"),
        (&format!("set b {big}"), "-MISCONF Errors writing to the AOF file: No space left on device"),
    ]);
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    let request = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$1\r\nv\r\n", key.len());
    assert_eq!(redis.send(request.as_bytes()), "-ERR key exceeds maximum allowed size");
}

#[test]
fn a_value_cannot_grow_beyond_what_a_request_could_set() {
    let mut redis = Redis::new();
    let half = "x".repeat(600_000);
    let append = format!("*3\r\n$6\r\nAPPEND\r\n$1\r\na\r\n$600000\r\n{half}\r\n");
    assert_eq!(redis.send(append.as_bytes()), ":600000");
    assert!(redis.send(append.as_bytes()).starts_with("-ERR string exceeds"));
}

#[test]
fn a_reply_that_does_not_fit_is_an_error_and_the_next_is_not() {
    let mut redis = Redis::new();
    let value = "x".repeat(1 << 20);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\na\r\n${}\r\n{value}\r\n", value.len());
    assert_eq!(redis.send(set.as_bytes()), "+OK");
    assert!(redis.ask("mget a a a a a").starts_with("-OOM"));
    assert_eq!(redis.ask("mget a a").len(), (1 << 20) * 2 + 22);
    assert_eq!(redis.ask("ping"), "+PONG");
}
