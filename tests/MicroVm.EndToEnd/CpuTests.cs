using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Several vCPUs, and what CPUID shows of them.</summary>
public sealed class CpuTests
{
    // What this kind of host has beyond the levels: the lab's processor has it, and so has every one since 2015.
    private static readonly string[] BeyondAnyLevel = ["aes", "pclmulqdq", "rdrand", "adx", "clflushopt"];
    private static readonly string[] Level2 = ["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"];
    private static readonly string[] Level3 = ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"];

    [SkippableFact]
    public void FourProcessorsWorkTogether()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("/bin/smp-torture", "4", "100");
        bundle.AddGuestProgram("smp-torture");
        CommandResult result = Container.Run(bundle, "--vcpus", "4");
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Matches(@"^4 processors: 3\d\d checks, 0 failed\n$", result.StandardOutput);
    }

    [SkippableFact]
    public void ALevelWithoutVectorStateHasNone()
    {
        RequireFiltering();
        using Bundle bundle = Features();
        bundle.Config["annotations"] = new JsonObject { ["dev.microvm.cpu-template"] = "x86-64-v2" };
        string[] lines = Lines(Container.RunWith(["--allow-annotations", "dev.microvm.cpu-template"], bundle));
        HashSet<string> flags = Flags(lines);
        Assert.Superset(Level2.ToHashSet(), flags);
        Assert.DoesNotContain(flags, f => Level3.Contains(f) || BeyondAnyLevel.Contains(f));

        // Reported, executed: the kernel has not turned the state on, so these fault.
        Assert.Superset(new HashSet<string> { "popcnt 1 1", "osxsave 0 0", "avx 0 0", "avx2 0 0", "aes 0 1", "rdrand 0 1", "clwb 0 1" }, lines.ToHashSet());
        Assert.DoesNotContain("xcr0 7", lines);
    }

    [SkippableFact]
    public void ALevelWithVectorStateHasItAndNoMore()
    {
        RequireFiltering();
        string[] host = File.ReadLines("/proc/cpuinfo").First(l => l.StartsWith("flags", StringComparison.Ordinal)).Split(' ');
        Skip.IfNot(Level3.All(host.Contains), "this processor has no AVX2");
        using Bundle bundle = Features();
        string[] lines = Lines(Container.Run(bundle, "--cpu-template", "x86-64-v3"));
        HashSet<string> flags = Flags(lines);
        Assert.Superset(Level2.Concat(Level3).ToHashSet(), flags);
        Assert.DoesNotContain(flags, f => BeyondAnyLevel.Contains(f) || f.StartsWith("avx512", StringComparison.Ordinal));
        Assert.Superset(new HashSet<string> { "popcnt 1 1", "osxsave 1 1", "avx 1 1", "avx2 1 1", "aes 0 1", "rdrand 0 1", "clwb 0 1", "xcr0 7" }, lines.ToHashSet());
    }

    [SkippableFact]
    public void TheHostsOwnTemplateHidesNothingOfThis()
    {
        RequireFiltering();
        using Bundle bundle = Features();
        HashSet<string> flags = Flags(Lines(Container.Run(bundle)));
        string[] host = File.ReadLines("/proc/cpuinfo").First(l => l.StartsWith("flags", StringComparison.Ordinal)).Split(' ');
        Assert.Superset(Level2.Concat(Level3).Concat(BeyondAnyLevel).Intersect(host).ToHashSet(), flags);
    }

    [SkippableFact]
    public void ATemplateThatCannotBeHadIsRefused()
    {
        Installation.RequireKvm();
        string flags = File.ReadLines("/proc/cpuinfo").First(l => l.StartsWith("flags", StringComparison.Ordinal));
        Skip.If(Installation.KvmIsOrdinary && flags.Contains("avx512vl", StringComparison.Ordinal), "this host can have every template: the refusal is tested in the lab, which lacks AVX-512");
        using Bundle bundle = Features();
        CommandResult result = Container.Run(bundle, "--cpu-template", "x86-64-v4");
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("x86-64-v4 is not possible on this host", result.StandardError, StringComparison.Ordinal);
        if (!Installation.KvmIsOrdinary)
        {
            Assert.Contains("PVM", result.StandardError, StringComparison.Ordinal);
        }
        else
        {
            Assert.Contains("which lacks avx512f, avx512dq", result.StandardError, StringComparison.Ordinal);
        }
    }

    private static void RequireFiltering()
    {
        Installation.RequireKvm();
        Skip.IfNot(Installation.KvmIsOrdinary, "this host's KVM shows guests all of its CPUID: covered in the lab (MICROVM_TEST_TARGET=lab)");
    }

    private static Bundle Features()
    {
        Bundle bundle = Bundle.Create("/bin/cpu-features && grep -m 1 ^flags /proc/cpuinfo");
        bundle.AddGuestProgram("cpu-features");
        return bundle;
    }

    private static string[] Lines(CommandResult result)
    {
        Assert.True(result.ExitCode == 0, result.ToString());
        return result.StandardOutput.Split('\n');
    }

    private static HashSet<string> Flags(string[] lines) =>
        lines.Single(l => l.StartsWith("flags", StringComparison.Ordinal)).Split(' ').ToHashSet();
}
