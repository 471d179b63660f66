namespace MicroVm.Tests.Shared.Host;

/// <summary>The kind of this machine's KVM.</summary>
internal static class HostKvm
{
    /// <summary>True where KVM runs ordinary kernels: the processor has VT-x or AMD-V. Elsewhere it is KVM on PVM.</summary>
    public static bool IsOrdinary { get; } =
        File.ReadLines("/proc/cpuinfo").Any(l => l.StartsWith("flags", StringComparison.Ordinal) && l.Split(' ').Any(f => f is "vmx" or "svm"));
}
