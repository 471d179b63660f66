using System.Diagnostics;
using Google.Protobuf;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Templates;

/// <summary>Makes a VM that was started from a template one of its own, before anything of a container is in it.</summary>
internal static unsafe class GuestIdentity
{
    private const int EntropyBytes = 64;
    private const int ClockAttempts = 10;
    private const double LatestMilliseconds = 5;

    /// <summary>Gives the guest random numbers that no sibling has, and the time of day.</summary>
    /// <exception cref="SandboxException">The agent refused, or the VM ended.</exception>
    internal static void Give(Guest guest)
    {
        byte* entropy = stackalloc byte[EntropyBytes];
        nint n;
        do
        {
            n = Libc.getrandom(entropy, EntropyBytes, 0);
        }
        while (Check.Retry(n));
        _ = Check.Result(n, "getrandom");
        ReseedRandomDevRequest seed = new() { Data = ByteString.CopyFrom(new ReadOnlySpan<byte>(entropy, (int)n)) };
        _ = guest.Call("give the guest its random numbers", agent => agent.ReseedRandomDev(seed));
        SetClock(guest);
    }

    /// <summary>Sets the guest's clock, which is then late by no more than the call took: a call that took long is repeated.</summary>
    private static void SetClock(Guest guest)
    {
        for (int i = 0; i < ClockAttempts; i++)
        {
            Libc.timespec now;
            Check.Result(Libc.clock_gettime(Libc.CLOCK_REALTIME, &now), "clock_gettime");
            SetGuestDateTimeRequest time = new() { Seconds = now.tv_sec, Nanoseconds = (uint)now.tv_nsec };
            long start = Stopwatch.GetTimestamp();
            _ = guest.Call("set the guest's clock", agent => agent.SetGuestDateTime(time));
            if (Stopwatch.GetElapsedTime(start).TotalMilliseconds <= LatestMilliseconds)
            {
                return;
            }
        }
    }
}
