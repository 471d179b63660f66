using FsCheck;
using FsCheck.Fluent;
using MicroVm.Oci.Cgroups;
using MicroVm.Oci.Config;

namespace MicroVm.Oci.Tests;

/// <summary>Changes of a running container's limits: what is written and what is in force afterwards.</summary>
public sealed class ResourcesUpdateTests
{
    private static readonly Resources Current = new()
    {
        Memory = new() { Limit = 100, Swap = 150, Reservation = 50 },
        Cpu = new() { Shares = 1024, Quota = 40000, Period = 100000, Burst = 30000, Cpus = "0" },
        Pids = new() { Limit = 7 },
        Unified = new() { ["memory.high"] = "90", ["cpu.uclamp.max"] = "50" },
    };

    [Fact]
    public void OnlyWhatChangesIsWritten()
    {
        Assert.Equal("pids.max=9", Update(new() { Pids = new() { Limit = 9 } }));
        Assert.Equal("pids.max=max", Update(new() { Pids = new() { Limit = -1 } }));
        Assert.Equal("cpu.weight=59", Update(new() { Cpu = new() { Shares = 512 } }));
        Assert.Equal("memory.high=80", Update(new() { Unified = new() { ["memory.high"] = "80" } }));
        Assert.Equal("", Update(new()));
        Assert.Equal("", Update(new() { Memory = null, Cpu = new() { Shares = 0, Quota = 0, Period = 0 }, Pids = new() { Limit = 0 }, BlockIO = new() }));
    }

    [Fact]
    public void QuotaPeriodAndBurstBelongTogether()
    {
        Assert.Equal("cpu.max.burst=0 cpu.max=20000 100000 cpu.max.burst=30000", Update(new() { Cpu = new() { Quota = 20000 } }));
        Assert.Equal("cpu.max.burst=0 cpu.max=40000 50000 cpu.max.burst=1", Update(new() { Cpu = new() { Period = 50000, Burst = 1 } }));
        Assert.Equal("cpu.max.burst=0 cpu.max=max 100000 cpu.max.burst=0", Update(new() { Cpu = new() { Quota = -1, Burst = 0 } }));
    }

    [Fact]
    public void AnIdleContainerHasNoWeight()
    {
        Assert.Equal("cpu.idle=1", Update(new() { Cpu = new() { Idle = 1 } }));
        ResourcesUpdate idle = ResourcesUpdate.Resolve(Current, new() { Cpu = new() { Idle = 1 } }, []);
        Assert.Equal("", Text(ResourcesUpdate.Resolve(idle.Merged, new() { Cpu = new() { Shares = 2048 } }, [])));
        ResourcesUpdate later = ResourcesUpdate.Resolve(idle.Merged, new() { Cpu = new() { Shares = 2048 } }, []);
        Assert.Equal($"cpu.idle=0 cpu.weight={CgroupSettings.CpuWeight(2048)}", Text(ResourcesUpdate.Resolve(later.Merged, new() { Cpu = new() { Idle = 0 } }, [])));
    }

    [Fact]
    public void MemoryAndSwapAreCheckedTogether()
    {
        Assert.Equal("memory.max=120 memory.low=50", Update(new() { Memory = new() { Limit = 120 } }));
        Assert.Contains("should be >=", Assert.Throws<SpecException>(() => Update(new() { Memory = new() { Limit = 200 } })).Message, StringComparison.Ordinal);
        ResourcesUpdate unlimited = ResourcesUpdate.Resolve(Current, new() { Memory = new() { Limit = -1 } }, []);
        Assert.Equal("memory.max=100 memory.low=60", Update(new() { Memory = new() { Limit = 0, Swap = 0, Reservation = 60 } }));
        Assert.Equal((-1L, "memory.max=max memory.low=50"), (unlimited.Merged.Memory!.Swap, Text(unlimited)));
    }

    [Fact]
    public void LimitsInUseAreRefusedOnlyWhenAsked()
    {
        ResourcesUpdate plain = ResourcesUpdate.Resolve(Current, new() { Memory = new() { Limit = 90 } }, []);
        Assert.Equal((0L, 0L), (plain.RefuseMemoryInUse, plain.RefuseSwapInUse));
        ResourcesUpdate check = ResourcesUpdate.Resolve(Current, new() { Memory = new() { Limit = 90, CheckBeforeUpdate = true } }, []);
        Assert.Equal((90L, 150L), (check.RefuseMemoryInUse, check.RefuseSwapInUse));
        ResourcesUpdate other = ResourcesUpdate.Resolve(check.Merged, new() { Pids = new() { Limit = 3 } }, []);
        Assert.Equal((0L, 0L), (other.RefuseMemoryInUse, other.RefuseSwapInUse));
    }

    [Fact]
    public void WhatIsMergedIsTheLastChangeOverTheFirst() =>
        Prop.ForAll(
            (from q in Gen.Elements<long?>(null, -1, 10000, 50000)
             from p in Gen.Elements<ulong?>(null, 50000, 100000)
             from s in Gen.Elements<ulong?>(null, 2, 1024)
             from l in Gen.Elements<long?>(null, -1, 4096, 8192)
             select new Resources { Cpu = new() { Quota = q, Period = p, Shares = s }, Memory = new() { Limit = l } }).ToArbitrary(),
            change =>
            {
                Resources start = new() { Cpu = new() { Quota = 7, Period = 8, Shares = 9 }, Memory = new() { Limit = 10 } };
                Resources merged = ResourcesUpdate.Resolve(start, change, []).Merged;
                Assert.Equal(change.Cpu!.Quota ?? 7, merged.Cpu!.Quota);
                Assert.Equal(change.Cpu.Period ?? 8, merged.Cpu.Period);
                Assert.Equal(change.Cpu.Shares ?? 9, merged.Cpu.Shares);
                Assert.Equal(change.Memory!.Limit ?? 10, merged.Memory!.Limit);
                return true;
            }).QuickCheckThrowOnFailure();

    private static string Update(Resources change) => Text(ResourcesUpdate.Resolve(Current, change, []));

    private static string Text(ResourcesUpdate update) => string.Join(' ', update.Settings.Select(s => $"{s.File}={s.Value}"));
}
