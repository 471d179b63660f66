namespace MicroVm.EndToEnd.Support;

/// <summary>Where the built binaries lie, and whether this machine can run them.</summary>
internal static class Installation
{
    /// <summary>The build's output folder: MICROVM_TEST_OUT, else <c>out</c> at the top of the tree.</summary>
    public static string Out { get; } = Environment.GetEnvironmentVariable("MICROVM_TEST_OUT") ?? FindOut();

    public static string Cli => Path.Combine(Out, "bin", "microvm");

    public static string Libexec => Path.Combine(Out, "libexec", "microvm");

    public static string Vmm => Path.Combine(Libexec, "microvm-vmm");

    public static string Kernel => Path.Combine(Libexec, "vmlinux");

    /// <summary>
    /// True where KVM emulates the guest's kernel code (KVM on PVM): a start takes seconds there, so that sizes shrink
    /// and deadlines grow.
    /// </summary>
    public static bool KernelCodeIsEmulated { get; } =
        !File.ReadLines("/proc/cpuinfo").Any(l => l.StartsWith("flags", StringComparison.Ordinal)
            && l.Split(' ').Any(f => f is "vmx" or "svm"));

    /// <summary>A deadline for one container, start to end.</summary>
    public static TimeSpan RunDeadline { get; } = TimeSpan.FromSeconds(KernelCodeIsEmulated ? 600 : 60);

    /// <summary>Skips the calling test, loudly, where no VM can be run.</summary>
    public static void RequireKvm()
    {
        Skip.IfNot(File.Exists(Cli), $"{Cli} is not built: run make build");
        Skip.IfNot(File.Exists("/dev/kvm"), "no /dev/kvm on this machine: nothing can be run end to end");
        Skip.IfNot(Environment.UserName == "root", "not root: micro-VMs' root file systems need root");
    }

    private static string FindOut()
    {
        string? dir = AppContext.BaseDirectory;
        while (dir is not null && !File.Exists(Path.Combine(dir, "MicroVm.sln")))
        {
            dir = Path.GetDirectoryName(dir);
        }

        return Path.Combine(dir ?? "/", "out");
    }
}
