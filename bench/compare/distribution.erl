%% Baseline of the bench `wire`: asks of 64 callers, and one-way messages of 64 bytes, between two nodes over Erlang distribution.
%% The asking node prints: asks a second, one-way messages a second, messages counted by the receiver.
-module(distribution).
-export([serve/0, main/1]).

-define(CALLERS, 64).

serve() ->
    register(echo, spawn(fun echo/0)),
    register(sink, spawn(fun() -> sink(0) end)),
    io:format("ready~n"),
    receive stop -> ok end.

main([Peer, Count]) ->
    Node = list_to_atom(Peer),
    Total = list_to_integer(Count),
    pong = connect(Node, 50),
    _ = asks(Node, Total div 4), % warm
    AskNs = asks(Node, Total),
    {OneWayNs, Counted} = one_way(Node, Total),
    io:format("~b ~b ~b~n", [Total * 1000000000 div AskNs, Total * 1000000000 div OneWayNs, Counted]),
    halt(0).

connect(Node, Left) ->
    case net_adm:ping(Node) of
        pong -> pong;
        pang when Left > 0 -> timer:sleep(100), connect(Node, Left - 1);
        pang -> pang
    end.

asks(Node, Total) ->
    Self = self(),
    Body = binary:copy(<<1>>, 64),
    Each = Total div ?CALLERS,
    Started = erlang:monotonic_time(nanosecond),
    _ = [spawn(fun() -> ask(Node, Body, Each), Self ! done end) || _ <- lists:seq(1, ?CALLERS)],
    _ = [receive done -> ok end || _ <- lists:seq(1, ?CALLERS)],
    (erlang:monotonic_time(nanosecond) - Started) * Total div (Each * ?CALLERS).

ask(_, _, 0) -> ok;
ask(Node, Body, Left) ->
    {echo, Node} ! {ask, self(), Left, Body},
    receive {answer, Left, Body} -> ask(Node, Body, Left - 1) end.

one_way(Node, Total) ->
    Body = binary:copy(<<1>>, 64),
    Started = erlang:monotonic_time(nanosecond),
    send(Node, Body, Total),
    {sink, Node} ! {total, self()},
    receive {total, Counted} -> {erlang:monotonic_time(nanosecond) - Started, Counted} end.

send(_, _, 0) -> ok;
send(Node, Body, Left) ->
    {sink, Node} ! {take, Body},
    send(Node, Body, Left - 1).

echo() ->
    receive {ask, From, Id, Body} -> From ! {answer, Id, Body}, echo() end.

sink(Count) ->
    receive
        {take, Body} when byte_size(Body) =:= 64 -> sink(Count + 1);
        {total, From} -> From ! {total, Count}, sink(0)
    end.
