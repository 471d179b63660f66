using MicroVm.VirtioFs.Dax;
using MicroVm.Vmm.Boot;
using MicroVm.Vmm.Machine.Cpu;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Machine;

/// <summary>Checks what a configuration's types cannot say: ranges and combinations.</summary>
public static class ConfigValidator
{
    private const int MinMemoryMiB = 16;
    private const int MaxMemoryMiB = 1 << 20;
    private const int GrowthUnitMiB = 128;
    private const int MaxVcpus = 32;
    private const uint FirstCid = 3;
    private const int MaxDaxWindowMiB = (int)(DaxWindow.MaxLength >> 20);

    /// <summary>Throws for the first setting that is wrong.</summary>
    /// <exception cref="ConfigException">The message names the setting, its value, and what it may be.</exception>
    public static void Check(VmmConfig config)
    {
        ArgumentNullException.ThrowIfNull(config);
        string? wrong =
            (config.Kernel ?? config.PvmKernel) is null && config.Restore is null ? "kernel: is missing"
            : config.Restore is not null && config.HugePages ? "hugePages: is not possible beside restore, which maps the snapshot's file"
            : config.MemoryMiB is < MinMemoryMiB or > MaxMemoryMiB ? $"memoryMiB: {config.MemoryMiB} is not {MinMemoryMiB} to {MaxMemoryMiB}"
            : config.HugePages && config.MemoryMiB % 2 != 0 ? $"memoryMiB: {config.MemoryMiB} is odd; with hugePages it must be a multiple of 2"
            : config.HugePages && config.Balloon ? "balloon: is not possible with hugePages, of which the host may have no others when the guest wants them back"
            : config.GrowthMiB is < 0 or > MaxMemoryMiB || config.GrowthMiB % GrowthUnitMiB != 0 ? $"growthMiB: {config.GrowthMiB} is not a multiple of {GrowthUnitMiB} up to {MaxMemoryMiB}"
            : config.GrowthMiB > 0 && config.HugePages ? "growthMiB: memory is not added to a VM with hugePages"
            : config.Vcpus is < 1 or > MaxVcpus ? $"vcpus: {config.Vcpus} is not 1 to {MaxVcpus}"
            : config.MaxVcpus is < 0 or > MaxVcpus ? $"maxVcpus: {config.MaxVcpus} is not 0 to {MaxVcpus}"
            : CpuTemplate.Find(config.CpuTemplate) is null ? $"cpuTemplate: \"{config.CpuTemplate}\" is not one of {string.Join(", ", CpuTemplateNames.All)}"
            : config.Vsock is { Cid: < FirstCid or uint.MaxValue } ? $"vsock.cid: {config.Vsock.Cid} is reserved; use {FirstCid} or more"
            : config.Vsock is { SocketPath.Length: 0 } ? "vsock.socketPath: is empty"
            : DeviceCount(config) > BootLayout.MaxVirtioDevices ? $"{DeviceCount(config)} virtio devices are configured; there is room for {BootLayout.MaxVirtioDevices}"
            : null;
        if (wrong is not null)
        {
            throw new ConfigException(wrong);
        }

        HashSet<string> tags = [];
        foreach (FsConfig fs in config.Fs)
        {
            if (!tags.Add(fs.Tag))
            {
                throw new ConfigException($"fs: two devices have the tag \"{fs.Tag}\"");
            }

            if (fs.DaxWindowMiB is < 0 or > MaxDaxWindowMiB || fs.DaxWindowMiB % 2 != 0)
            {
                throw new ConfigException($"fs.daxWindowMiB: {fs.DaxWindowMiB} is not an even number from 0 to {MaxDaxWindowMiB}");
            }
        }
    }

    private static int DeviceCount(VmmConfig config) =>
        (config.Entropy ? 1 : 0) + (config.Console is null ? 0 : 1) + (config.Vsock is null ? 0 : 1) + config.Fs.Count + config.Block.Count + config.Pmem.Count + config.Net.Count
        + (config.Balloon ? 1 : 0) + (config.GrowthMiB > 0 ? 1 : 0);
}
