using System.Globalization;
using System.Numerics;
using System.Text;
using MicroVm.Bus;
using MicroVm.Memory;

namespace MicroVm.Vmm.Boot;

/// <summary>Puts the kernel's command line together and into guest RAM.</summary>
public static class KernelCommandLine
{
    /// <summary>
    /// Appends <paramref name="additions"/> to what the user gave, but before a <c>--</c>, behind which everything belongs
    /// to the init process.
    /// </summary>
    public static string Compose(string given, IEnumerable<string> additions)
    {
        ArgumentNullException.ThrowIfNull(given);
        string added = string.Join(' ', additions);
        if (added.Length == 0)
        {
            return given.Trim();
        }

        string padded = given + " ";
        int separator = padded.StartsWith("-- ", StringComparison.Ordinal) ? 0 : padded.IndexOf(" -- ", StringComparison.Ordinal);
        return separator < 0
            ? $"{given.Trim()} {added}".Trim()
            : $"{given[..separator].Trim()} {added} {given[separator..].Trim()}".Trim();
    }

    /// <summary>The parameter that tells Linux of a virtio-mmio window (Documentation/admin-guide/kernel-parameters.txt).</summary>
    public static string VirtioMmio(ulong gpa, uint gsi) =>
        string.Create(CultureInfo.InvariantCulture, $"virtio_mmio.device=4K@0x{gpa:x}:{gsi}");

    /// <summary>Memory that is plugged is used: nobody need write to sysfs for each block of it. For what can be swapped and moved, and all else.</summary>
    public const string OnlineMemory = "memhp_default_state=online";

    /// <summary>
    /// So many CPUs come up at boot, of more that the tables tell of. SLUB would take larger slabs for all of them (calculate_order in
    /// mm/slub.c): it takes those for the CPUs that boot.
    /// </summary>
    public static string BootCpus(int vcpus) =>
        string.Create(CultureInfo.InvariantCulture, $"maxcpus={vcpus} slub_min_objects={4 * (BitOperations.Log2((uint)vcpus) + 2)}");

    /// <summary>How our kernel powers off without ACPI (kernel-config/patches, 0012); others take it for a module's parameter.</summary>
    public static string PowerOffPort { get; } =
        string.Create(CultureInfo.InvariantCulture, $"microvm.power_off_port=0x{IoPorts.SleepControl:x},0x{IoPorts.PowerOff:x}");

    /// <summary>Writes it to <see cref="BootLayout.CommandLine"/>, ended by a zero byte.</summary>
    /// <exception cref="BootException">It is longer than the kernel takes, or holds a zero byte or a line break.</exception>
    public static void Write(GuestMemory memory, string commandLine, KernelImage kernel)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ArgumentNullException.ThrowIfNull(commandLine);
        ArgumentNullException.ThrowIfNull(kernel);
        byte[] bytes = new byte[Encoding.UTF8.GetByteCount(commandLine) + 1];
        Encoding.UTF8.GetBytes(commandLine, bytes);
        if (bytes.Length - 1 > kernel.CommandLineMax)
        {
            throw new BootException($"the kernel command line has {bytes.Length - 1} bytes with what the VMM adds; this kernel takes {kernel.CommandLineMax}");
        }

        if (commandLine.AsSpan().ContainsAny('\0', '\n', '\r'))
        {
            throw new BootException("the kernel command line holds a zero byte or a line break");
        }

        memory.TryWrite(BootLayout.CommandLine, bytes);
    }
}
