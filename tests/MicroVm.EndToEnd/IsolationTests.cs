using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>The edge between a container's processes and the guest's kernel, which has page tables of its own making on PVM hosts.</summary>
public sealed class IsolationTests
{
    // Where a kernel that runs at CPL 3 could be entered, or its monitor called.
    private static readonly HashSet<string> Symbols =
    [
        "cpl3_mon_start", "cpl3_mons", "cpl3_mon_idt", "cpl3_call", "cpl3_event_user", "cpl3_event_kernel", "cpl3_upcall",
        "cpl3_return_trap", "cpl3_mon_wrmsr", "cpl3_mon_write_cr3", "cpl3_mon_outb", "cpl3_mon_halt", "cpl3_mon_reset",
        "entry_SYSCALL_64", "entry_SYSCALL_64_after_hwframe",
    ];

    [SkippableFact]
    public void ProcessesStayInUserMode()
    {
        Installation.RequireKvm();
        Skip.If(Installation.IsLab, "on QEMU's processor a process that returns to a kernel's selector ends by SIGKILL, not SIGSEGV: covered on the host");
        string map = Path.Combine(Installation.Libexec, "System-pvm.map");
        string[] addresses = File.Exists(map)
            ? [.. File.ReadLines(map).Select(l => l.Split(' ')).Where(f => f.Length == 3 && Symbols.Contains(f[2])).Select(f => f[0])]
            : [];
        using Bundle bundle = Bundle.Create(["/bin/isolation", .. addresses]);
        bundle.AddGuestProgram("isolation");
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.Matches(@"^isolation: [0-9]{3} checks, 0 failed\n$", result.StandardOutput);
    }
}
