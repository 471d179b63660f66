using System.Text;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared.Host;

namespace MicroVm.EndToEnd.Support;

/// <summary>Where the built binaries lie, which runtime the tests drive, and whether this machine can run it.</summary>
internal static class Installation
{
    /// <summary>The build's output folder: MICROVM_TEST_OUT, else <c>out</c> at the top of the tree.</summary>
    public static string Out { get; } = Environment.GetEnvironmentVariable("MICROVM_TEST_OUT") ?? FindOut();

    public static string Cli => Path.Combine(Out, "bin", "microvm");

    /// <summary>
    /// The runtime under test: MICROVM_TEST_RUNTIME, else our own. With runc or crun the suite itself is tried: what they fail,
    /// the test gets wrong, not `microvm`.
    /// </summary>
    public static string Runtime { get; } = Environment.GetEnvironmentVariable("MICROVM_TEST_RUNTIME") is { Length: > 0 } other ? other : Cli;

    public static bool IsMicroVm { get; } = Runtime == Cli;

    public static string Libexec => Path.Combine(Out, "libexec", "microvm");

    public static string Vmm => Path.Combine(Libexec, "microvm-vmm");

    public static string Kernel => Path.Combine(Libexec, "vmlinux");

    /// <summary>True where KVM runs ordinary kernels: the processor has VT-x or AMD-V. Elsewhere it is KVM on PVM.</summary>
    public static bool KvmIsOrdinary => HostKvm.IsOrdinary;

    /// <summary>
    /// True where the guest's kernel code is emulated, one instruction at a time: on PVM, without the kernel for it. A start takes
    /// seconds there.
    /// </summary>
    public static bool KernelCodeIsEmulated { get; } = IsMicroVm && !KvmIsOrdinary && !File.Exists(Path.Combine(Libexec, "vmlinux-pvm"));

    /// <summary>
    /// True in the lab (MICROVM_TEST_TARGET=lab; the default is host): a machine with an ordinary KVM, on a slow, emulated
    /// processor.
    /// </summary>
    public static bool IsLab { get; } = Environment.GetEnvironmentVariable("MICROVM_TEST_TARGET") == "lab";

    /// <summary>A deadline for one container, start to end, on a busy machine; long where any of it may be emulated.</summary>
    public static TimeSpan RunDeadline { get; } = TimeSpan.FromSeconds(KernelCodeIsEmulated ? 600 : KvmIsOrdinary && !IsLab ? 60 : 300);

    /// <summary>A program of <c>guest/</c>, compiled by the build.</summary>
    public static string GuestProgram(string name)
    {
        string path = Path.Combine(AppContext.BaseDirectory, "guest", name);
        Skip.IfNot(File.Exists(path), "gcc was not installed when the tests were built: there are no guest programs");
        return path;
    }

    /// <summary>Skips where what a VM keeps in user.* attributes, such as device nodes, cannot be kept.</summary>
    public static void RequireUserAttributes(string folder) =>
        Skip.If(IsMicroVm && !KeepsUserAttributes(folder), $"NO user.* extended attributes on the file system of {folder}: what is kept in them is not tested");

    /// <summary>Whether the folder's file system has user.* attributes: tmpfs before Linux 6.6 has none.</summary>
    public static unsafe bool KeepsUserAttributes(string folder)
    {
        fixed (byte* path = Encoding.UTF8.GetBytes(folder + "\0"), name = "user.microvm-test\0"u8)
        {
            return Libc.setxattr(path, name, name, 1, 0) == 0 && Libc.removexattr(path, name) == 0;
        }
    }

    /// <summary>Skips the calling test, which looks at a VM, loudly where none can be run.</summary>
    public static void RequireKvm()
    {
        Skip.IfNot(IsMicroVm, $"about micro-VMs: does not apply to {Runtime}");
        RequireRuntime();
    }

    /// <summary>Skips the calling test, which any OCI runtime can pass, loudly where the one under test cannot run.</summary>
    public static void RequireRuntime() => Skip.IfNot(WhyNothingRuns is null, WhyNothingRuns);

    /// <summary>What this machine lacks for the runtime under test; null when it lacks nothing.</summary>
    public static string? WhyNothingRuns =>
        !File.Exists(Runtime) ? IsMicroVm ? $"{Cli} is not built: run make build" : $"there is no {Runtime}"
        : IsLab && !File.Exists("/usr/sbin/lab-setup") ? "MICROVM_TEST_TARGET is lab, but this is not the lab: run tests/lab/test-suite"
        : IsMicroVm && !File.Exists("/dev/kvm") ? "no /dev/kvm on this machine: nothing can be run end to end"
        : Environment.UserName != "root" ? "not root: containers' root file systems need root"
        : null;

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
