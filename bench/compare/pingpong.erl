%% Baseline of the bench `ask`: one-way messages and round trips between two processes on two schedulers.
%% Prints: nanoseconds a one-way message, nanoseconds a round trip, messages counted by the receiver.
-module(pingpong).
-export([main/1]).

-define(TRIPS, 20000).

main([Argument]) ->
    Messages = list_to_integer(Argument),
    Self = self(),
    spawn_opt(fun() -> Self ! {done, measure(Messages)} end, [{scheduler, 1}]),
    receive {done, {OneWay, Trip, Counted}} -> io:format("~b ~b ~b~n", [OneWay, Trip, Counted]) end,
    halt(0).

measure(Messages) ->
    Body = binary:copy(<<1>>, 64),
    Sink = spawn_opt(fun() -> sink(0) end, [{scheduler, 2}]),
    _ = one_way(Sink, Body, Messages), % warm
    {OneWayNs, Counted} = one_way(Sink, Body, Messages),
    Echo = spawn_opt(fun echo/0, [{scheduler, 2}]),
    _ = trips(Echo, ?TRIPS div 4),
    {OneWayNs div Messages, trips(Echo, ?TRIPS) div ?TRIPS, Counted}.

one_way(Sink, Body, Messages) ->
    Started = erlang:monotonic_time(nanosecond),
    send(Sink, Body, Messages),
    Sink ! {total, self()},
    receive {total, Count} -> {erlang:monotonic_time(nanosecond) - Started, Count} end.

send(_, _, 0) -> ok;
send(Sink, Body, Left) ->
    Sink ! {take, Left, Body},
    send(Sink, Body, Left - 1).

sink(Count) ->
    receive
        {take, _, Body} when byte_size(Body) =:= 64 -> sink(Count + 1);
        {total, From} -> From ! {total, Count}, sink(0)
    end.

echo() ->
    receive {ping, From, Value} -> From ! {pong, Value}, echo() end.

trips(Echo, Count) ->
    Started = erlang:monotonic_time(nanosecond),
    trip(Echo, Count),
    erlang:monotonic_time(nanosecond) - Started.

trip(_, 0) -> ok;
trip(Echo, Left) ->
    Echo ! {ping, self(), Left},
    receive {pong, Left} -> trip(Echo, Left - 1) end.
