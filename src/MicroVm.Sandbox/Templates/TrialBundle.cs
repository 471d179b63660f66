using System.Text;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.Templates;

/// <summary>The bundle of the trial container: what <c>microvm spec</c> writes, and a root with one program, which ends at once.</summary>
internal static class TrialBundle
{
    private const string Program = "/trial";
    private const uint FolderMode = 0b111_101_101, ProgramMode = 0b111_101_101;

    /// <summary>An executable of 129 bytes: mov eax, 231 (exit_group); xor edi, edi; syscall.</summary>
    internal static ReadOnlySpan<byte> Executable =>
    [
        // e_ident, ET_EXEC, EM_X86_64, the entry 0x400078, program headers at 64, one of 56 bytes (elf(5)).
        0x7f, 0x45, 0x4c, 0x46, 0x02, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x02, 0x00, 0x3e, 0x00, 0x01, 0x00, 0x00, 0x00, 0x78, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x38, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,

        // PT_LOAD, readable and executable: the file's 129 bytes at 0x400000.
        0x01, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x81, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x81, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0xb8, 0xe7, 0x00, 0x00, 0x00, 0x31, 0xff, 0x0f, 0x05,
    ];

    /// <summary>Makes the root file system in a folder.</summary>
    /// <param name="folder">Absolute path of the bundle, which does not exist.</param>
    /// <returns>The configuration, and the path of the root file system.</returns>
    /// <exception cref="LinuxException">It cannot be made.</exception>
    internal static (Spec Spec, string Rootfs) Make(string folder)
    {
        foreach (string directory in (ReadOnlySpan<string>)["", "rootfs", "rootfs/dev", "rootfs/proc", "rootfs/sys"])
        {
            HostFile.MakeFolder(Path.Combine(folder, directory), FolderMode);
        }

        HostFile.Replace(Path.Combine(folder, "rootfs" + Program), Executable, ProgramMode);
        string json = DefaultSpec.For(unifiedCgroups: true)
            .Replace("\"terminal\": true", "\"terminal\": false", StringComparison.Ordinal)
            .Replace("\"sh\"", $"\"{Program}\"", StringComparison.Ordinal);
        Spec spec = SpecReader.ParseBundle(Encoding.UTF8.GetBytes(json));
        return (spec, SpecValidator.Validate(spec, folder));
    }
}
