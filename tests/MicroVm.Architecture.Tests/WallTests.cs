using System.Text.RegularExpressions;
using System.Xml.Linq;
using Mono.Cecil;

namespace MicroVm.Architecture.Tests;

/// <summary>The order of projects and of the VMM's folders (docs/ARCHITECTURE.md): what lies below knows nothing of what lies above.</summary>
public sealed partial class WallTests
{
    private const string Vmm = "microvm-vmm", VmmNamespace = "MicroVm.Vmm";

    // From the bottom to the top: each refers to those before it only.
    private static readonly string[] Projects =
    [
        "MicroVm.Protocol.Generator", "MicroVm.Json", "MicroVm.Linux", "MicroVm.Kvm", "MicroVm.Ttrpc", "MicroVm.Protocol", "MicroVm.Oci", "MicroVm.VmmControl",
        "MicroVm.Memory", "MicroVm.Jail", "MicroVm.Bus", "MicroVm.Virtio", "MicroVm.VirtioFs", "MicroVm.InstructionEmulator", "MicroVm.Vmm",
        "MicroVm.Agent", "MicroVm.Sandbox", "MicroVm.Cli", "MicroVm.Shim",
    ];

    // Libraries that are part of the VMM alone.
    private static string[] PartsOfTheVmm => ["MicroVm.Memory", "MicroVm.Jail", "MicroVm.Bus", "MicroVm.Virtio", "MicroVm.VirtioFs", "MicroVm.InstructionEmulator"];

    // The VMM and the agent are exposed to the guest: what they do not need is not in them.
    private static readonly (string Project, string[] Without)[] Strangers =
    [
        ("MicroVm.Vmm", ["MicroVm.Oci", "MicroVm.Ttrpc", "MicroVm.Protocol"]),
        ("MicroVm.Agent", ["MicroVm.Oci", "MicroVm.Kvm", "MicroVm.Vmm", "MicroVm.VmmControl", .. PartsOfTheVmm]),
        ("MicroVm.Sandbox", ["MicroVm.Vmm", "MicroVm.Agent", "MicroVm.Kvm", .. PartsOfTheVmm]),
    ];

    // Assemblies of the product.
    private static readonly string[] Ours =
    [
        "MicroVm.Json", "MicroVm.Linux", "MicroVm.Kvm", "MicroVm.Ttrpc", "MicroVm.Protocol", "MicroVm.Oci", "MicroVm.VmmControl", .. PartsOfTheVmm, "MicroVm.Sandbox",
        "microvm", Vmm, "microvm-agent",
    ];

    // Namespaces of the VMM's assemblies, from the bottom to the top; those in a row of braces belong together.
    private static readonly string[][] Folders =
    [
        ["Memory"], ["Jail"], ["Bus.Counters"], ["Bus"], ["Virtio"], ["Virtio.Mmio"],
        ["VirtioFs.Protocol"], ["VirtioFs.HostFiles"], ["VirtioFs.Descriptors"], ["VirtioFs.Inodes"], ["VirtioFs.Exports"], ["VirtioFs.Handles"], ["VirtioFs.Dax"],
        ["VirtioFs.Locks"], ["VirtioFs.Fifos"], ["VirtioFs.Events"], ["VirtioFs.Sockets"], ["VirtioFs.Waiting"], ["VirtioFs.Requests"], ["VirtioFs.Operations"], ["VirtioFs"],
        ["InstructionEmulator", "InstructionEmulator.Handlers"],
        ["Vmm.Snapshot"], ["Vmm.Boot"], ["Vmm.Tables", "Vmm.Tables.Acpi"], ["Vmm.Serial"],
        ["Vmm.Devices.Balloon"], ["Vmm.Devices.Block"], ["Vmm.Devices.Console"], ["Vmm.Devices.Entropy"], ["Vmm.Devices.Mem"], ["Vmm.Devices.Net"],
        ["Vmm.Devices.Pmem"], ["Vmm.Devices.Vsock"],
        ["Vmm.Machine", "Vmm.Machine.Cpu"], ["Vmm.Control"], ["Vmm.Startup"], ["Vmm.Program"],
    ];

    // Who may turn a guest's address into a pointer: the queues, the word of interrupts' status, KVM's memory slots, the loader of boot
    // files, and instructions that KVM cannot complete.
    private static readonly string[] PointerMakers =
    [
        "Virtio.Virtqueue", "Virtio.Mmio.InterruptStatus", "Vmm.Machine.VirtualMachine", "Vmm.Boot.BootFile",
        "InstructionEmulator.GuestOperand", "InstructionEmulator.GuestPageWalker",
    ];

    [Fact]
    public void ProjectsReferOnlyToThoseBelow()
    {
        string top = Directory.GetParent(Source())!.FullName;
        foreach (string file in Directory.GetFiles(Path.Combine(top, "src"), "*.csproj", SearchOption.AllDirectories).Append(Path.Combine(top, "guest-agent", "MicroVm.Agent.csproj")))
        {
            string project = Path.GetFileNameWithoutExtension(file);
            int level = Array.IndexOf(Projects, project);
            Assert.True(level >= 0, $"{project} has no place in the order of projects");
            foreach (string reference in XDocument.Load(file).Descendants("ProjectReference").Select(r => Path.GetFileNameWithoutExtension((string)r.Attribute("Include")!)))
            {
                Assert.True(Array.IndexOf(Projects, reference) < level, $"{project} refers to {reference}, which is above it");
                Assert.False(Strangers.Any(s => s.Project == project && s.Without.Contains(reference)), $"{project} refers to {reference}");
            }
        }
    }

    /// <summary>
    /// It is OpenSSL, which a static executable would load while it runs, with a second libc whose thread-local storage overwrites the
    /// runtime's: objects lose their first values.
    /// </summary>
    [Fact]
    public void NobodyUsesTheLibrarysCryptography()
    {
        string top = Directory.GetParent(Source())!.FullName;
        string[] files =
        [
            .. ((string[])["src", "guest-agent"]).SelectMany(f => Directory.GetFiles(Path.Combine(top, f), "*.cs", SearchOption.AllDirectories))
                .Where(f => !f.Contains("/obj/", StringComparison.Ordinal) && !f.Contains("/bin/", StringComparison.Ordinal)),
        ];
        Assert.True(files.Length > 400, $"{files.Length} files were found");
        Assert.DoesNotContain(files, f => Cryptography().IsMatch(File.ReadAllText(f)));
    }

    // CryptographicOperations is the library's own code.
    [GeneratedRegex(@"\b(RandomNumberGenerator|IncrementalHash|HashAlgorithm\w*|MD5|SHA(1|(3_)?\d{3})|HMAC\w+|Rfc2898\w+|HKDF|Aes\w*|RSA|ECDsa|X509\w+)\.")]
    private static partial Regex Cryptography();

    [Fact]
    public void FoldersOfTheVmmUseOnlyThoseBelow()
    {
        SortedSet<string> upward = [];
        int arrows = 0;
        foreach ((TypeReference user, MemberReference used) in OfTheVmm())
        {
            if (Folder(user) is { } from && Folder(Uses.Outermost(used)) is { } to && Level(from) is var level && Level(to) != level)
            {
                arrows++;
                if (Level(to) > level)
                {
                    upward.Add($"{from} uses {to}: {user.Name} names {used.Name}");
                }
            }
        }

        Assert.Empty(upward);
        Assert.True(arrows > 500, $"{arrows} uses were found: the assemblies were not read");
    }

    [Fact]
    public void OnlyTheInstructionEmulatorDecodesInstructions() =>
        Assert.Equal(
            ["InstructionEmulator", "InstructionEmulator.Handlers"],
            Ours.SelectMany(Uses.Of).Where(u => Uses.Outermost(u.Used).Namespace.StartsWith("Iced", StringComparison.Ordinal)).Select(u => Folder(u.User)).Distinct().Order());

    [Fact]
    public void OnlyTheQueuesAndTheMachineHaveThePointersToGuestMemoryThatMemoryMakes()
    {
        string[] makers =
        [
            .. OfTheVmm()
                .Where(u => u.Used is MethodReference { Name: "TryGetPointer" or "get_Hva" } m && m.DeclaringType.Namespace == "MicroVm.Memory")
                .Where(u => Folder(u.User) != "Memory")
                .Select(u => $"{Folder(u.User)}.{u.User.Name}")
                .Distinct()
                .Order(),
        ];
        Assert.NotEmpty(makers);
        Assert.All(makers, m => Assert.Contains(m, PointerMakers));
    }

    [Fact]
    public void SystemCallsByNumberAreMadeInTheirHomeAlone()
    {
        (string User, string Name)[] calls =
        [
            .. Ours.SelectMany(Uses.Of)
                .Where(u => u.Used is MethodReference { Name: "syscall" })
                .Select(u => (u.User.FullName, u.Used.Name))
                .Distinct(),
        ];
        Assert.Equal([("MicroVm.Linux.Native.Libc", "syscall")], calls);
    }

    /// <summary>Documents are read and written by rows: the library's serializer is a ninth of a short-lived program.</summary>
    [Fact]
    public void NobodyUsesTheSerializer() =>
        Assert.Empty(Ours.SelectMany(Uses.Of)
            .Where(u => Uses.Outermost(u.Used).FullName is "System.Text.Json.JsonSerializer" or "System.Text.Json.Serialization.JsonSerializerContext")
            .Select(u => $"{u.User.FullName} uses {u.Used.FullName}"));

    private static IEnumerable<(TypeReference User, MemberReference Used)> OfTheVmm() => PartsOfTheVmm.Append(Vmm).SelectMany(Uses.Of);

    private static int Level(string folder)
    {
        int level = Array.FindIndex(Folders, row => row.Contains(folder));
        Assert.True(level >= 0, $"MicroVm.{folder} has no place in the order of folders");
        return level;
    }

    // The namespace below MicroVm. Null outside of the VMM, and for what the compiler makes.
    private static string? Folder(TypeReference type) =>
        type.Namespace == VmmNamespace ? "Vmm." + type.Name
        : PartsOfTheVmm.Append(VmmNamespace).Any(p => type.Namespace == p || type.Namespace.StartsWith(p + ".", StringComparison.Ordinal)) ? type.Namespace["MicroVm.".Length..]
        : null;

    private static string Source([System.Runtime.CompilerServices.CallerFilePath] string path = "") => Path.GetDirectoryName(Path.GetDirectoryName(path))!;
}
