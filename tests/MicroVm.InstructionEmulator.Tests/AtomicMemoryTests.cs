using System.Runtime.InteropServices;
using Xunit;

namespace MicroVm.InstructionEmulator.Tests;

/// <summary>The 16-byte compare-and-exchange under contention.</summary>
public unsafe class AtomicMemoryTests
{
    [Fact]
    public void Concurrent_increments_of_both_halves_are_all_counted()
    {
        const int Threads = 4;
        const int PerThread = 20_000;
        UInt128* target = (UInt128*)NativeMemory.AlignedAlloc(16, 16);
        *target = 0;
        try
        {
            nint address = (nint)target;
            Thread[] threads = [.. Enumerable.Range(0, Threads).Select(_ => new Thread(() => Increment((UInt128*)address, PerThread)))];
            Array.ForEach(threads, t => t.Start());
            Array.ForEach(threads, t => t.Join());
            Assert.Equal(new UInt128(Threads * PerThread, Threads * PerThread), *target);
        }
        finally
        {
            NativeMemory.AlignedFree(target);
        }
    }

    private static void Increment(UInt128* target, int count)
    {
        UInt128 found = 0;
        for (int i = 0; i < count; i++)
        {
            while (!AtomicMemory.CompareExchange(target, ref found, found + new UInt128(1, 1)))
            {
            }
        }
    }
}
