using MicroVm.VmmControl;

namespace MicroVm.EndToEnd.Support;

/// <summary>Debian's own cloud kernel as a guest: no patch and no setting of ours, its drivers loaded as modules.</summary>
internal static class StockKernel
{
    private static readonly string[] Modules = ["virtio_mmio", "virtio_blk", "virtio-rng", "virtiofs"];

    private static string? Release { get; } = Directory.Exists("/boot")
        ? Directory.EnumerateFiles("/boot", "vmlinuz-*-cloud-amd64").Select(f => Path.GetFileName(f)[8..]).Max(StringComparer.Ordinal)
        : null;

    /// <summary>Skips the calling test where such a kernel is missing or cannot run.</summary>
    public static void Require()
    {
        Installation.RequireKvm();
        Skip.IfNot(Installation.KvmIsOrdinary, "needs an ordinary KVM, which runs stock kernels: covered in the lab (MICROVM_TEST_TARGET=lab)");
        Skip.If(Release is null || !File.Exists($"/boot/vmlinux-{Release}"), "no Debian cloud kernel in /boot: covered in the lab (MICROVM_TEST_TARGET=lab)");
    }

    /// <summary>A VM of 192 MiB with a disk and a shared folder, described by ACPI alone, whose /init is <c>guest/stock-init</c>.</summary>
    /// <param name="folder">Where its initramfs, disk and shared folder are made.</param>
    /// <param name="image">"vmlinuz" or "vmlinux".</param>
    /// <param name="vcpus">Number of vCPUs.</param>
    /// <param name="end">What /init does at its end: "poweroff", "reboot" or "wait".</param>
    public static VmmConfig Config(string folder, string image, int vcpus, string end)
    {
        string tree = Directory.CreateDirectory(Path.Combine(folder, "tree")).FullName;
        File.WriteAllText(Path.Combine(tree, "file"), "from the host");
        string disk = Path.Combine(folder, "disk");
        File.WriteAllText(disk, "disk content" + new string('\0', (1 << 20) - 12));
        return new VmmConfig
        {
            Kernel = FileReference.FromPath($"/boot/{image}-{Release}"),
            Initrd = FileReference.FromPath(MakeInitramfs(folder)),
            CommandLine = $"console=ttyS0 quiet panic=-1 end={end}",
            MemoryMiB = 192,
            Vcpus = vcpus,
            Tables = MachineTables.Acpi,
            Block = [new BlockConfig { File = FileReference.FromPath(disk) }],
            Fs = [new FsConfig { Tag = "shared", Exports = [new FsExport { Name = "tree", File = FileReference.FromPath(tree) }] }],
        };
    }

    private static string MakeInitramfs(string folder)
    {
        string archive = Path.Combine(folder, "initramfs.cpio");
        Shell.Run("sh", "-ec", $$"""
            mkdir -p {{folder}}/root/bin {{folder}}/root/modules {{folder}}/root/proc {{folder}}/root/sys {{folder}}/root/dev
            cd {{folder}}/root
            cp /bin/busybox {{Installation.GuestProgram("vector-torture")}} {{Installation.GuestProgram("smp-torture")}} bin
            install -m 755 {{AppContext.BaseDirectory}}guest/stock-init init
            n=100
            for m in $(for name in {{string.Join(' ', Modules)}}; do modprobe -S {{Release}} --show-depends $name; done |
                       sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++'); do
                cp $m modules/$((n += 1))-${m##*/}
            done
            find . | busybox cpio -o -H newc >{{archive}}
            """).EnsureSuccess();
        return archive;
    }
}
