using System.Buffers.Binary;
using System.IO.Hashing;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.VmmControl.Snapshots;
using Xunit;

namespace MicroVm.VmmControl.Tests.Snapshots;

/// <summary>The layout of state files: whatever a file holds, it is read whole or refused with one sentence.</summary>
public sealed class SnapshotFileTests
{
    private const int Head = 32, Entry = 64;
    private static readonly byte[] Example = GoldenSnapshot.Make();

    /// <summary>The file was written by the first version of the format, and is never made anew.</summary>
    [Fact]
    public void The_golden_file_is_read_and_written_the_same()
    {
        byte[] golden = File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "Snapshots", "golden", "version-1.state"));
        AssertExample(SnapshotFile.Parse(golden));
        Assert.Equal(1u, SnapshotFormat.Version);
        Assert.Equal(Convert.ToHexString(golden), Convert.ToHexString(Example));
    }

    [Fact]
    public void What_was_written_is_read() => AssertExample(SnapshotFile.Parse(Example));

    private static void AssertExample(SnapshotFile file)
    {
        Assert.Equal(GoldenSnapshot.Header, file.Header);
        Assert.Equal(["header", "vcpu0", "empty", "fs0"], file.Sections.Select(s => s.Name));
        StateReader reader = file.Open("vcpu0", 7);
        Assert.Equal(0x1122334455667788ul, reader.Read<ulong>());
        Assert.True(reader.ReadFlag());
        Assert.Equal("é", reader.ReadText(8));
        reader.End();
        file.Open("empty", 1).End();
    }

    [Fact]
    public void Every_truncation_is_refused()
    {
        for (int length = 0; length < Example.Length; length++)
        {
            AssertRefused(Example[..length]);
        }

        AssertRefused([.. Example, 0]);
    }

    [Fact]
    public void Every_changed_bit_is_refused()
    {
        for (int i = 0; i < Example.Length * 8; i++)
        {
            byte[] changed = [.. Example];
            changed[i / 8] ^= (byte)(1 << (i % 8));
            AssertRefused(changed);
        }
    }

    /// <summary>Numbers of head and table that are wrong while all checksums are right.</summary>
    [Fact]
    public void Lengths_and_counts_that_are_wrong_are_refused()
    {
        Gen<(int At, ulong Value)> change =
            from at in Gen.Choose(2, (Head + (4 * Entry)) / sizeof(uint) - 1)
            from value in Gen.OneOf(
                Gen.Choose(0, 300).Select(n => (ulong)n),
                Gen.Choose(0, 300).Select(n => ulong.MaxValue - (ulong)n),
                Gen.Choose(0, int.MaxValue).Select(n => (ulong)n << 20),
                Gen.Elements(0x7fff_fffful, 0x8000_0000ul, 0xffff_fffful, 0x7fff_ffff_ffff_fffful, 0x8000_0000_0000_0000ul))
            select (at * sizeof(uint), value);
        int read = 0, refused = 0;
        Prop.ForAll(change.ToArbitrary(), c =>
        {
            byte[] file = [.. Example];
            BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(c.At), c.Value);
            int table = Math.Min((int)Math.Min(BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(12)), 256) * Entry, file.Length - Head);
            BinaryPrimitives.WriteUInt64LittleEndian(file.AsSpan(16), XxHash3.HashToUInt64(file.AsSpan(Head, table)));
            try
            {
                _ = SnapshotFile.Parse(file);
                read++;
            }
            catch (SnapshotException e)
            {
                AssertSentence(e);
                refused++;
            }
        }).QuickCheckThrowOnFailure();
        Assert.True(refused > read, $"{refused} files were refused, {read} were read");
    }

    [Fact]
    public void A_value_that_is_not_there_is_refused()
    {
        StateReader Reader(params byte[] content) => new("x", content);
        AssertSentence(Assert.Throws<SnapshotException>(() => Reader(1, 2, 3).Read<uint>()));
        AssertSentence(Assert.Throws<SnapshotException>(() => Reader(2).ReadFlag()));
        AssertSentence(Assert.Throws<SnapshotException>(() => Reader(5, 0, 0, 0, 1, 2).ReadBytes(100)));
        AssertSentence(Assert.Throws<SnapshotException>(() => Reader(0xff, 0xff, 0xff, 0xff).ReadBytes(100)));
        AssertSentence(Assert.Throws<SnapshotException>(() => Reader(0xff, 0xff, 0xff, 0x7f).ReadBytes(int.MaxValue)));
        AssertSentence(Assert.Throws<SnapshotException>(() => Reader(3, 0, 0, 0, 1, 2, 3).ReadBytes(2)));
        AssertSentence(Assert.Throws<SnapshotException>(() => Reader(0).End()));
    }

    [Fact]
    public void A_section_of_another_version_is_refused()
    {
        SnapshotFile file = SnapshotFile.Parse(Example);
        SnapshotException e = Assert.Throws<SnapshotException>(() => file.Open("vcpu0", 8));
        Assert.Equal("the section \"vcpu0\" has version 7, this program understands 8: make the snapshot anew", e.Message);
        Assert.Equal("the section \"none\" is missing", Assert.Throws<SnapshotException>(() => file.Open("none", 1)).Message);
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("null")]
    [InlineData("[")]
    [InlineData("{\"memoryMiB\":0,\"vcpus\":1}")]
    [InlineData("{\"memoryMiB\":2000000,\"vcpus\":1}")]
    [InlineData("{\"memoryMiB\":64,\"vcpus\":33}")]
    [InlineData("{\"memoryMiB\":64,\"vcpus\":1,\"other\":1}")]
    [InlineData("{\"memoryMiB\":64,\"vcpus\":1,\"devices\":null}")]
    public void A_header_that_is_malformed_is_refused(string json)
    {
        byte[] file = new SnapshotWriter(GoldenSnapshot.Header).ToArray();
        byte[] content = Encoding.UTF8.GetBytes(json);
        byte[] changed = [.. file[..(Head + Entry)], .. content];
        BinaryPrimitives.WriteUInt64LittleEndian(changed.AsSpan(Head + 40), (ulong)content.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(changed.AsSpan(Head + 48), XxHash3.HashToUInt64(content));
        BinaryPrimitives.WriteUInt64LittleEndian(changed.AsSpan(16), XxHash3.HashToUInt64(changed.AsSpan(Head, Entry)));
        AssertRefused(changed);
    }

    private static void AssertRefused(byte[] file) => AssertSentence(Assert.Throws<SnapshotException>(() => SnapshotFile.Parse(file)));

    private static void AssertSentence(SnapshotException e) => Assert.DoesNotContain(e.Message, char.IsControl);
}
